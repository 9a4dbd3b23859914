//! The link to a collector: gRPC or HTTP, with TLS, headers and gzip; what it answered, in one form.

use std::path::{Path, PathBuf};
use std::time::Duration;

use flate2::Compression;
use flate2::write::GzEncoder;
use hyper::body::Bytes;
use hyper::http::uri::PathAndQuery;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceResponse;
use prost::Message as _;
use prost::bytes::{Buf as _, BufMut as _};
use tonic::codec::{Codec, CompressionEncoding, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::metadata::{Ascii, MetadataKey, MetadataValue};
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};
use tonic::{Code, Request, Status};
use tonic_types::StatusExt as _;

use crate::agent::{Trust, read};

/// Time for one attempt.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(10);
/// Most bytes of an answer that are looked at.
const ANSWER_BYTES_MAX: u64 = 64 * 1024;
const METRICS_GRPC: &str = "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export";
const METRICS_HTTP: &str = "/v1/metrics";

/// How a collector is spoken to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Protocol {
    /// gRPC.
    #[default]
    Grpc,
    /// Protobuf over HTTP/1.1.
    Http,
}

/// Where pushes go.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Link {
    /// `http://` or `https://`, host and port; over HTTP also a path that `/v1/metrics` is put behind.
    pub endpoint: String,
    /// How it is spoken to.
    pub protocol: Protocol,
    /// Whether requests are packed.
    pub gzip: bool,
    /// A file of headers, `name: value` in each line: they may hold secrets.
    pub headers_file: Option<PathBuf>,
    /// PEM: who may sign the collector's certificate; none: whom the system trusts.
    pub ca: Option<PathBuf>,
    /// PEM: what Larum shows of itself.
    pub certificate: Option<PathBuf>,
    /// PEM: its key.
    pub key: Option<PathBuf>,
}

/// What became of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Taken, but for so many points.
    Taken {
        /// Points that were not.
        rejected: u64,
        /// Why not, or a warning.
        message: String,
    },
    /// Not now.
    Again {
        /// When, if it said so.
        after: Option<Duration>,
        /// Why.
        why: String,
    },
    /// Never.
    Refused(String),
}

/// A link that is ready for use.
pub enum Client {
    /// gRPC.
    Grpc {
        /// Connects by itself, again and again.
        channel: Channel,
        /// Go with each request.
        headers: Vec<(MetadataKey<Ascii>, MetadataValue<Ascii>)>,
        /// Whether requests are packed.
        gzip: bool,
    },
    /// HTTP.
    Http {
        /// Keeps connections.
        agent: ureq::Agent,
        /// Without the signal's own path.
        url: String,
        /// Go with each request.
        headers: Vec<(String, String)>,
        /// Whether requests are packed.
        gzip: bool,
    },
}

/// `name: value` in each line; blank ones and those that begin with # are passed over.
fn read_headers(path: Option<&Path>) -> Result<Vec<(String, String)>, String> {
    let Some(path) = path else { return Ok(Vec::new()) };
    let mut headers = Vec::new();
    for (at, line) in
        read(path)?.lines().enumerate().filter(|(_, line)| !line.trim().is_empty() && !line.starts_with('#'))
    {
        // The line itself may be a secret and is not shown.
        let wrong = || format!("{}: line {} is not of the form name: value", path.display(), at + 1);
        let (name, value) = line.split_once(':').ok_or_else(wrong)?;
        headers.push((name.trim().to_ascii_lowercase(), value.trim().to_string()));
    }
    Ok(headers)
}

impl Link {
    /// Reads the files that it names, and makes the client. Call within a runtime; nothing is connected yet.
    ///
    /// # Errors
    /// What is wrong, in plain words, without secrets.
    pub fn client(&self) -> Result<Client, String> {
        let headers = read_headers(self.headers_file.as_deref())?;
        match self.protocol {
            Protocol::Grpc => self.grpc(&headers),
            Protocol::Http => self.http(headers),
        }
    }

    fn is_secured(&self) -> bool {
        self.endpoint.starts_with("https://")
    }

    fn grpc(&self, headers: &[(String, String)]) -> Result<Client, String> {
        let wrong = |error: tonic::transport::Error| format!("{}: {error}", self.endpoint);
        let mut endpoint = Endpoint::from_shared(self.endpoint.clone()).map_err(wrong)?;
        endpoint = endpoint.connect_timeout(ATTEMPT_TIMEOUT).timeout(ATTEMPT_TIMEOUT);
        if self.is_secured() {
            let mut tls = ClientTlsConfig::new();
            tls = match &self.ca {
                Some(path) => tls.ca_certificate(Certificate::from_pem(read(path)?)),
                None => tls.with_native_roots(),
            };
            if let (Some(certificate), Some(key)) = (&self.certificate, &self.key) {
                tls = tls.identity(Identity::from_pem(read(certificate)?, read(key)?));
            }
            endpoint = endpoint.tls_config(tls).map_err(wrong)?;
        }
        let header = |(name, value): &(String, String)| {
            let parsed = name.parse().ok().zip(value.parse().ok());
            parsed.ok_or_else(|| format!("the header {name} cannot be sent with this value"))
        };
        let headers = headers.iter().map(header).collect::<Result<_, _>>()?;
        Ok(Client::Grpc { channel: endpoint.connect_lazy(), headers, gzip: self.gzip })
    }

    fn http(&self, headers: Vec<(String, String)>) -> Result<Client, String> {
        let trust = Trust { ca: self.ca.clone(), certificate: self.certificate.clone(), key: self.key.clone() };
        let agent = trust.agent(self.is_secured())?;
        let url = self.endpoint.trim_end_matches('/').to_string();
        Ok(Client::Http { agent, url, headers, gzip: self.gzip })
    }
}

impl Client {
    /// Sends the body of one export request of metrics.
    pub async fn send(&self, body: Bytes) -> Answer {
        match self {
            Client::Grpc { channel, headers, gzip } => send_grpc(channel.clone(), headers, *gzip, body).await,
            Client::Http { agent, url, headers, gzip } => {
                let (agent, url, headers, gzip) = (agent.clone(), url.clone() + METRICS_HTTP, headers.clone(), *gzip);
                let sending = tokio::task::spawn_blocking(move || send_http(&agent, &url, &headers, gzip, &body));
                sending.await.unwrap_or_else(|error| Answer::Refused(error.to_string()))
            }
        }
    }
}

/// Bodies are bytes already.
#[derive(Default)]
struct AsIs;

impl Codec for AsIs {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = AsIs;
    type Decoder = AsIs;

    fn encoder(&mut self) -> AsIs {
        AsIs
    }

    fn decoder(&mut self) -> AsIs {
        AsIs
    }
}

impl Encoder for AsIs {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, body: Bytes, to: &mut EncodeBuf<'_>) -> Result<(), Status> {
        to.put(body);
        Ok(())
    }
}

impl Decoder for AsIs {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(from.copy_to_bytes(from.remaining())))
    }
}

async fn send_grpc(
    channel: Channel,
    headers: &[(MetadataKey<Ascii>, MetadataValue<Ascii>)],
    gzip: bool,
    body: Bytes,
) -> Answer {
    let mut client = tonic::client::Grpc::new(channel);
    if gzip {
        client = client.send_compressed(CompressionEncoding::Gzip);
    }
    if let Err(error) = client.ready().await {
        return Answer::Again { after: None, why: error.to_string() };
    }
    let mut request = Request::new(body);
    request.set_timeout(ATTEMPT_TIMEOUT);
    for (name, value) in headers {
        request.metadata_mut().insert(name.clone(), value.clone());
    }
    match client.unary(request, PathAndQuery::from_static(METRICS_GRPC), AsIs).await {
        Ok(response) => taken(&response.into_inner()),
        Err(status) => {
            let why = format!("{:?}: {}", status.code(), status.message());
            let after = status.get_details_retry_info().and_then(|info| info.retry_delay);
            match status.code() {
                Code::Cancelled
                | Code::DeadlineExceeded
                | Code::Aborted
                | Code::OutOfRange
                | Code::Unavailable
                | Code::DataLoss => Answer::Again { after, why },
                // Without a word about when, it means that what was sent is too much.
                Code::ResourceExhausted if after.is_some() => Answer::Again { after, why },
                // What the transport itself says when a connection breaks.
                Code::Unknown => Answer::Again { after, why },
                _ => Answer::Refused(why),
            }
        }
    }
}

fn send_http(agent: &ureq::Agent, url: &str, headers: &[(String, String)], gzip: bool, body: &[u8]) -> Answer {
    let mut request = agent.post(url).header("content-type", "application/x-protobuf");
    for (name, value) in headers {
        request = request.header(name, value);
    }
    let sent = if gzip {
        let mut packed = GzEncoder::new(Vec::with_capacity(body.len() / 8), Compression::fast());
        // Writing to memory does not fail.
        let written = std::io::Write::write_all(&mut packed, body).and_then(|()| packed.finish());
        request.header("content-encoding", "gzip").send(written.unwrap_or_default())
    } else {
        request.send(body)
    };
    let mut response = match sent {
        Ok(response) => response,
        Err(error) => return Answer::Again { after: None, why: error.to_string() },
    };
    let status = response.status();
    let header = response.headers().get("retry-after").and_then(|value| value.to_str().ok());
    let after = header.and_then(|text| text.trim().parse().ok()).map(Duration::from_secs);
    let answer = response.body_mut().with_config().limit(ANSWER_BYTES_MAX).read_to_vec();
    match status.as_u16() {
        200..300 => taken(&answer.unwrap_or_default()),
        429 | 502..=504 => Answer::Again { after, why: status.to_string() },
        _ => Answer::Refused(status.to_string()),
    }
}

/// A success, perhaps a partial one.
fn taken(answer: &[u8]) -> Answer {
    let partial = ExportMetricsServiceResponse::decode(answer).ok().and_then(|response| response.partial_success);
    let partial = partial.unwrap_or_default();
    Answer::Taken { rejected: partial.rejected_data_points.max(0) as u64, message: partial.error_message }
}
