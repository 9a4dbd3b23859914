//! Looks after the web configuration: certificates and users may change while Larum runs.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use larum_export::http::guard::{Guard, Rules, WebSettings};

use crate::config::{Problem, web};

/// Time between looks at the files.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// What tells one state of a file from another.
type Trace = Vec<Option<(SystemTime, u64)>>;

/// Reads the files again whenever one of them changed and stands still, until the runtime ends. What cannot be used changes
/// nothing, and is tried again.
pub async fn watch(path: PathBuf, mut settings: WebSettings, guard: Arc<Guard>) {
    let mut used = trace(&path, &settings);
    let (mut before, mut refused) = (used.clone(), String::new());
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        // A file that is being written differs from look to look.
        let now = trace(&path, &settings);
        let is_still = std::mem::replace(&mut before, now.clone()) == now;
        if !is_still || (now == used && refused.is_empty()) {
            continue;
        }
        match read(&path) {
            Ok((read, rules)) => {
                guard.replace(rules);
                tracing::info!(file = %path.display(), "web configuration read again");
                // Compared with what was there before it was read; files that are new to it are looked at from now on.
                used = if read == settings { now } else { trace(&path, &read) };
                (settings, refused) = (read, String::new());
                before = used.clone();
            }
            Err(why) if why == refused => {}
            Err(why) => {
                tracing::warn!(problem = why, "web configuration changed and cannot be used; the one before stays");
                refused = why;
            }
        }
    }
}

fn read(path: &Path) -> Result<(WebSettings, Rules), String> {
    // Empty means open to everybody, which at this point is rather a file that is being replaced.
    if std::fs::read_to_string(path).is_ok_and(|text| text.trim().is_empty()) {
        return Err(format!("{} is empty", path.display()));
    }
    let joined = |problems: Vec<Problem>| problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ");
    web::load(Some(path)).map_err(joined)
}

fn trace(path: &Path, settings: &WebSettings) -> Trace {
    let of_file = |path: &Path| std::fs::metadata(path).and_then(|file| Ok((file.modified()?, file.len()))).ok();
    std::iter::once(path).chain(settings.files()).map(of_file).collect()
}
