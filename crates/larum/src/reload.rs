//! Looks after the web configuration: certificates and users may change while Larum runs.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use larum_export::http::guard::{Guard, WebSettings};

use crate::config::web;

/// Time between looks at the files.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// What tells one state of a file from another.
type Trace = Vec<Option<(SystemTime, u64)>>;

/// Reads the files again whenever one of them changed, until the runtime ends. What cannot be read changes nothing.
pub async fn watch(path: PathBuf, mut settings: WebSettings, guard: Arc<Guard>) {
    let mut before = trace(&path, &settings);
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        let now = trace(&path, &settings);
        if now == before {
            continue;
        }
        match web::load(Some(&path)) {
            Ok((read, rules)) => {
                guard.replace(rules);
                settings = read;
                tracing::info!(file = %path.display(), "web configuration read again");
                before = trace(&path, &settings);
            }
            Err(problems) => {
                let why: Vec<String> = problems.iter().map(ToString::to_string).collect();
                tracing::warn!(
                    problem = why.join("; "),
                    "web configuration changed and cannot be used; the one before stays"
                );
                before = now;
            }
        }
    }
}

fn trace(path: &Path, settings: &WebSettings) -> Trace {
    let of_file = |path: &Path| std::fs::metadata(path).and_then(|file| Ok((file.modified()?, file.len()))).ok();
    std::iter::once(path).chain(settings.files()).map(of_file).collect()
}
