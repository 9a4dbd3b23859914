//! How names from outside are shown: nobody can inject into a label, no e-mail address shows, nobody is lost.

use std::borrow::Cow;
use std::hash::Hasher;

use siphasher::sip::SipHasher13;

/// Label of a name that an event does not say.
pub const UNKNOWN: &str = "unknown";
/// Longest name that is shown as it is, bytes.
const SHOWN_BYTES_MAX: usize = 64;

/// The label text of a name: itself if it matches `[A-Za-z0-9._:/-]{1,64}`, does not begin with `__` and is not
/// reserved, else `~` and 16 hex digits of its hash under `key`.
pub fn shown_name(name: &str, key: (u64, u64)) -> Cow<'_, str> {
    let plain = (1..=SHOWN_BYTES_MAX).contains(&name.len())
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"._:/-".contains(&b))
        && !name.starts_with("__")
        && name != UNKNOWN;
    if plain {
        return Cow::Borrowed(name);
    }
    let mut hasher = SipHasher13::new_with_keys(key.0, key.1);
    hasher.write(name.as_bytes());
    Cow::Owned(format!("~{:016x}", hasher.finish()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hostile_names_are_hashed_under_the_key() {
        let show = |name| shown_name(name, (1, 2));
        let (longest, too_long) = ("x".repeat(64), "x".repeat(65));
        for plain in ["acme", "a.b:c/d-e_f", "_x", &longest] {
            assert_eq!(show(plain), plain);
        }
        for hostile in ["", "a b", "__other__", "unknown", "j@d.oe", "a\"}", &too_long, "é", "~0"] {
            let shown = show(hostile);
            assert!(shown.len() == 17 && shown.starts_with('~'), "{hostile} {shown}");
            assert_ne!(shown, shown_name(hostile, (1, 3)));
        }
    }
}
