//! Which format a scrape is answered in: content negotiation.

/// What is served at `/metrics`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Prometheus text format 0.0.4.
    Text,
    /// OpenMetrics 1.0.
    OpenMetrics,
    /// Length-delimited `io.prometheus.client.MetricFamily` messages.
    Protobuf,
}

impl Format {
    /// Its media type, as the answer states it.
    pub const fn content_type(self) -> &'static str {
        match self {
            Format::Text => "text/plain; version=0.0.4; charset=utf-8",
            Format::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            Format::Protobuf => {
                "application/vnd.google.protobuf; proto=io.prometheus.client.MetricFamily; encoding=delimited"
            }
        }
    }

    /// The best that a client takes, by its `Accept`: what it likes most, and of that what it names first. Text for one that
    /// takes nothing of what there is: a scrape that can be read is worth more than an error.
    pub fn accepted(accept: &str) -> Format {
        let mut best: Option<(u32, Format)> = None;
        for range in accept.split(',') {
            let (media, quality) = media_range(range);
            if let Some(format) = Self::of(&media)
                && quality > 0
                && best.is_none_or(|(before, _)| quality > before)
            {
                best = Some((quality, format));
            }
        }
        best.map_or(Format::Text, |(_, format)| format)
    }

    fn of((media, parameters): &(String, Vec<(String, String)>)) -> Option<Format> {
        let parameter = |name: &str| parameters.iter().find(|p| p.0 == name).map(|p| p.1.as_str());
        match media.as_str() {
            "application/vnd.google.protobuf" => {
                let is_it = parameter("proto") == Some("io.prometheus.client.metricfamily")
                    && parameter("encoding") == Some("delimited");
                is_it.then_some(Format::Protobuf)
            }
            "application/openmetrics-text" => {
                matches!(parameter("version"), None | Some("1.0.0" | "0.0.1")).then_some(Format::OpenMetrics)
            }
            "text/plain" => matches!(parameter("version"), None | Some("0.0.4")).then_some(Format::Text),
            "*/*" | "text/*" => Some(Format::Text),
            _ => None,
        }
    }
}

/// One range of an `Accept`: media type and parameters in lower case, and its quality in thousandths (0 if it cannot be
/// read).
fn media_range(range: &str) -> ((String, Vec<(String, String)>), u32) {
    let mut parts = range.split(';').map(|part| part.trim().to_ascii_lowercase());
    let media = parts.next().unwrap_or_default();
    let (mut parameters, mut quality) = (Vec::new(), 1000);
    for part in parts {
        let Some((name, value)) = part.split_once('=') else { continue };
        let (name, value) = (name.trim().to_string(), value.trim().trim_matches('"').to_string());
        match name.as_str() {
            "q" => quality = value.parse::<f64>().map_or(0, |q| (q.clamp(0.0, 1.0) * 1000.0) as u32),
            _ => parameters.push((name, value)),
        }
    }
    ((media, parameters), quality)
}

/// Whether a client takes gzip, by its `Accept-Encoding`.
pub fn takes_gzip(accept_encoding: &str) -> bool {
    let mut any = false;
    for range in accept_encoding.split(',') {
        let ((coding, _), quality) = media_range(range);
        match coding.as_str() {
            "gzip" => return quality > 0,
            "*" => any = quality > 0,
            _ => {}
        }
    }
    any
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_get_the_best_that_they_take() {
        let proto = "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited";
        for (accept, format) in [
            ("", Format::Text),
            ("*/*", Format::Text),
            ("application/json", Format::Text),
            ("text/plain;version=1.0.0;q=0.9,text/plain;version=0.0.4;q=0.5", Format::Text),
            ("application/openmetrics-text; version=1.0.0; charset=utf-8", Format::OpenMetrics),
            ("application/openmetrics-text;version=2.0.0,*/*;q=0.1", Format::Text),
            // Prometheus 2.42, then 3.x, with and without native histograms.
            (
                "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,\
                 text/plain;version=0.0.4;q=0.5,*/*;q=0.1",
                Format::OpenMetrics,
            ),
            (&format!("{proto},application/openmetrics-text;version=1.0.0;q=0.8,*/*;q=0.2"), Format::Protobuf),
            (
                &format!(
                    "{proto};q=0.7,application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,*/*;q=0.1"
                ),
                Format::Protobuf,
            ),
            (&format!("{proto};q=0,text/plain;q=0.3"), Format::Text),
            ("application/vnd.google.protobuf;encoding=text", Format::Text),
            ("application/openmetrics-text;q=0.2;version=\"1.0.0\", text/plain;q=0.3", Format::Text),
            ("application/openmetrics-text;q=wrong", Format::Text),
        ] {
            assert_eq!(Format::accepted(accept), format, "{accept}");
        }
    }

    #[test]
    fn gzip_is_taken_where_it_is_named_and_not_refused() {
        for (accept, takes) in [
            ("", false),
            ("gzip", true),
            ("br, gzip;q=0.5", true),
            ("gzip;q=0", false),
            ("*", true),
            ("deflate", false),
        ] {
            assert_eq!(takes_gzip(accept), takes, "{accept}");
        }
    }
}
