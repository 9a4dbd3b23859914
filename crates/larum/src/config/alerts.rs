//! The section `alerts`: the catalogue, and whom to tell.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use larum_alert::Catalogue;
use larum_export::Trust;
use larum_export::alertmanager::{Credentials, Receivers};

use super::catalogue;
use super::reader::Reader;

/// What is judged, and who is told.
#[derive(Clone, Debug, PartialEq)]
pub struct AlertsConfig {
    /// What is judged.
    pub catalogue: Arc<Catalogue>,
    /// Who is told.
    pub receivers: Receivers,
    /// Time between tellings of what goes on.
    pub resend: Duration,
    /// Where a dashboard is, with `{dashboard}`, `{tenant}`, `{region}`, `{from_ms}`, `{to_ms}`.
    pub dashboard_url: String,
    /// Where a runbook is, with `{alert}`.
    pub runbook_url: String,
    /// Where Larum is, for people.
    pub external_url: String,
}

const DASHBOARD_URL: &str =
    "http://localhost:3000/d/{dashboard}?var-tenant={tenant}&var-region={region}&from={from_ms}&to={to_ms}";
const RUNBOOK_URL: &str = "config/runbooks/{alert}.md";

/// Reads the section.
pub fn read(reader: &mut Reader<'_>, flags: &[String], listen: &str) -> AlertsConfig {
    let mut alerts = reader.map("alerts");
    let path = |reader: &mut Reader<'_>, key| reader.optional_text(key).map(PathBuf::from);
    let catalogue = match path(&mut alerts, "catalogue") {
        Some(file) => read_catalogue(&mut alerts, &file),
        None => shipped(),
    };
    let in_file = alerts.texts("alertmanagers");
    let urls = if flags.is_empty() { in_file } else { flags.to_vec() };
    if let Some(other) = urls.iter().find(|url| !["http://", "https://"].iter().any(|scheme| url.starts_with(scheme))) {
        alerts.complain("alertmanagers", &format!("takes URLs such as http://localhost:9093, not {other}"));
    }
    if urls.iter().any(|url| {
        url.split("//").nth(1).is_some_and(|rest| rest.split('/').next().is_some_and(|host| host.contains('@')))
    }) {
        alerts.complain("alertmanagers", "take no user and password in a URL: give basic_auth with a password_file");
    }
    let credentials = credentials(&mut alerts);
    let mut tls = alerts.map("tls");
    let trust =
        Trust { ca: path(&mut tls, "ca"), certificate: path(&mut tls, "certificate"), key: path(&mut tls, "key") };
    if trust.certificate.is_some() != trust.key.is_some() {
        tls.complain("certificate", "and key belong together: give both or neither");
    }
    alerts.close(tls);
    let receivers = Receivers { urls, credentials, trust };
    // Reads the files, sends nothing.
    if let Err(why) = receivers.sender() {
        alerts.complain("alertmanagers", &format!("cannot be told: {why}"));
    }
    let resend = alerts.duration("resend", "1m", Duration::from_secs(1)..=Duration::from_secs(3600));
    let (dashboard_url, runbook_url) =
        (alerts.text("dashboard_url", DASHBOARD_URL), alerts.text("runbook_url", RUNBOOK_URL));
    let external_url = alerts.optional_text("external_url").unwrap_or_else(|| format!("http://{listen}/"));
    reader.close(alerts);
    AlertsConfig { catalogue, receivers, resend, dashboard_url, runbook_url, external_url }
}

fn credentials(reader: &mut Reader<'_>) -> Credentials {
    let bearer = reader.optional_text("credentials_file").map(PathBuf::from);
    let mut basic = reader.map("basic_auth");
    let (user, password) = (basic.optional_text("username"), basic.optional_text("password_file").map(PathBuf::from));
    if user.is_some() != password.is_some() {
        basic.complain("username", "and password_file belong together: give both or neither");
    }
    reader.close(basic);
    match (bearer, user, password) {
        (Some(_), Some(_), _) => {
            reader.complain("credentials_file", "and basic_auth are two ways to say who Larum is: give one");
            Credentials::None
        }
        (Some(file), ..) => Credentials::Bearer(file),
        (None, Some(user), Some(file)) => Credentials::Basic(user, file),
        _ => Credentials::None,
    }
}

/// The catalogue that is built in.
pub fn shipped() -> Arc<Catalogue> {
    // A test reads it.
    Arc::new(catalogue::read(catalogue::SHIPPED, None).unwrap_or_default())
}

fn read_catalogue(reader: &mut Reader<'_>, file: &Path) -> Arc<Catalogue> {
    let text = match std::fs::read_to_string(file) {
        Ok(text) => text,
        Err(error) => {
            reader.complain("catalogue", &format!("cannot be read: {}: {error}", file.display()));
            return Arc::default();
        }
    };
    let runbooks = file.parent().unwrap_or(Path::new("")).join("runbooks");
    match catalogue::read(&text, Some(&runbooks)) {
        Ok(catalogue) => Arc::new(catalogue),
        Err(problems) => {
            for problem in problems {
                reader.complain("catalogue", &format!("cannot be used: {}: {problem}", file.display()));
            }
            Arc::default()
        }
    }
}
