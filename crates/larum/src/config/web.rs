//! The web configuration: TLS and users of the HTTP endpoint, a file as Prometheus' exporters have it.

use std::path::{Path, PathBuf};

use larum_export::http::guard::{ClientAuth, Rules, TlsSettings, WebSettings};

use super::node::{Problem, parse};
use super::reader::Reader;

/// Names of Go's `tls.ClientAuthType`, as the file has them.
const CLIENT_AUTH: [(&str, ClientAuth); 4] = [
    ("NoClientCert", ClientAuth::None),
    ("", ClientAuth::None),
    ("VerifyClientCertIfGiven", ClientAuth::IfGiven),
    ("RequireAndVerifyClientCert", ClientAuth::Required),
];

/// Reads the file and what it names; none: in the clear, for everybody.
///
/// # Errors
/// Every problem found.
pub fn load(path: Option<&Path>) -> Result<(WebSettings, Rules), Vec<Problem>> {
    let whole = |text: String| vec![Problem { line: None, text }];
    let settings = match path {
        None => WebSettings::default(),
        Some(path) => {
            let text = std::fs::read_to_string(path)
                .map_err(|error| whole(format!("{} cannot be read: {error}", path.display())))?;
            read(&text, path.parent().unwrap_or(Path::new(""))).map_err(|problems| {
                let of_file = |problem: &Problem| format!("{}: {problem}", path.display());
                problems.iter().map(|problem| Problem { line: None, text: of_file(problem) }).collect::<Vec<_>>()
            })?
        }
    };
    let rules = Rules::new(&settings);
    let rules = rules.map_err(|why| whole(format!("{}: {why}", path.unwrap_or(Path::new("")).display())))?;
    Ok((settings, rules))
}

/// Paths are meant from `folder` on, where the file is.
fn read(text: &str, folder: &Path) -> Result<WebSettings, Vec<Problem>> {
    let root = parse(text).map_err(|problem| vec![problem])?;
    let mut reader = Reader::new(root.as_ref());
    let has_tls = reader.has("tls_server_config");
    let mut tls = reader.map("tls_server_config");
    let of_tls = read_tls(&mut tls, folder);
    if has_tls && (of_tls.certificate.as_os_str().is_empty() || of_tls.key.as_os_str().is_empty()) {
        tls.complain("cert_file", "and key_file are needed for TLS");
    }
    reader.close(tls);
    let mut http = reader.map("http_server_config");
    // Scrapes are as well served by HTTP/1.1; the key is taken because the files of exporters have it.
    http.optional_text("http2");
    let headers = http.pairs("headers").into_iter().map(|(_, name, value)| (name, value)).collect();
    reader.close(http);
    let users = reader.pairs("basic_auth_users").into_iter().map(|(_, user, hash)| (user, hash)).collect();
    let problems = reader.finish();
    let settings = WebSettings { tls: has_tls.then_some(of_tls), users, headers };
    if problems.is_empty() { Ok(settings) } else { Err(problems) }
}

fn read_tls(tls: &mut Reader<'_>, folder: &Path) -> TlsSettings {
    let path = |tls: &mut Reader<'_>, key| tls.optional_text(key).map(|text| folder.join(text));
    let required = |path: Option<PathBuf>| path.unwrap_or_default();
    let (oldest, newest) = (tls.text("min_version", "TLS12"), tls.text("max_version", "TLS13"));
    let versions = ["TLS12", "TLS13"];
    for (key, version) in [("min_version", &oldest), ("max_version", &newest)] {
        if !versions.contains(&version.as_str()) {
            tls.complain(key, &format!("takes TLS12 or TLS13, not {version}"));
        }
    }
    if tls.optional_text("prefer_server_cipher_suites").is_some_and(|prefers| prefers != "true") {
        tls.complain("prefer_server_cipher_suites", "can only be true");
    }
    TlsSettings {
        certificate: required(path(tls, "cert_file")),
        key: required(path(tls, "key_file")),
        client_auth: tls.choice("client_auth_type", &CLIENT_AUTH),
        client_ca: path(tls, "client_ca_file"),
        client_allowed_sans: tls.texts("client_allowed_sans"),
        tls12: oldest == "TLS12",
        tls13: newest == "TLS13",
        cipher_suites: tls.texts("cipher_suites"),
    }
}
