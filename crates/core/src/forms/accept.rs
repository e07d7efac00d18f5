//! Which form a reply takes.

use crate::model::query::Query;

use super::arguments::not_one_of;
use super::error::Refusal;

/// The argument that names a form, whatever the headers say.
pub const FORMAT: &str = "format";

/// Form of a reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// `application/json`.
    Json,
    /// `text/plain`, for people and scripts.
    Text,
}

/// Form of a status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StatusFormat {
    /// `application/json`, for programs.
    Json,
    /// `text/plain`, for people and scripts.
    Text,
    /// `text/html`, for people with a browser.
    Html,
    /// The text format of Prometheus, for those that collect metrics.
    Prometheus,
}

impl StatusFormat {
    /// The form of a refusal, where this was asked for.
    pub fn refusal(self) -> Format {
        if self == Self::Json { Format::Json } else { Format::Text }
    }
}

/// The form for a status: JSON, unless another is preferred to it. A page and metrics must be asked for by their names:
/// what accepts everything gets JSON.
///
/// # Errors
///
/// If `format=` has an unknown value.
pub fn for_status(query: &Query, accept: Option<&[u8]>) -> Result<StatusFormat, Refusal> {
    match query.get(FORMAT) {
        None => {}
        Some("html") => return Ok(StatusFormat::Html),
        Some("prometheus") => return Ok(StatusFormat::Prometheus),
        Some(_) => {
            let named = named(query, &["json", "text", "html", "prometheus"])?;
            return Ok(if named == Some(Format::Text) { StatusFormat::Text } else { StatusFormat::Json });
        }
    }
    let accept = Ranges::parse(accept);
    let (json, text) = (accept.quality("application", "json"), accept.quality("text", "plain"));
    Ok(if accept.metrics().is_some_and(|metrics| metrics > 0 && metrics >= json) {
        StatusFormat::Prometheus
    } else if accept.named("text", "html").is_some_and(|html| html > json && html >= text) {
        StatusFormat::Html
    } else if text > json {
        StatusFormat::Text
    } else {
        StatusFormat::Json
    })
}

/// The form for a control request: text as ever, unless JSON is asked for by its name.
///
/// # Errors
///
/// If `format=` has an unknown value.
pub fn for_control(query: &Query, accept: Option<&[u8]>) -> Result<Format, Refusal> {
    named(query, &["json", "text"]).map(|named| named.unwrap_or_else(|| by_header(accept)))
}

/// The form of a reply to a control request whose arguments could not be read.
pub fn by_header(accept: Option<&[u8]>) -> Format {
    const NAME: &[u8] = b"json";
    let is_named = |header: &[u8]| header.windows(NAME.len()).any(|word| word.eq_ignore_ascii_case(NAME));
    if !accept.is_some_and(is_named) {
        return Format::Text;
    }
    let accept = Ranges::parse(accept);
    let json = accept.named("application", "json").unwrap_or(0);
    if json > 0 && json >= accept.named("text", "plain").unwrap_or(0) { Format::Json } else { Format::Text }
}

/// The form that `format=` names, of those that are known.
fn named(query: &Query, known: &[&str]) -> Result<Option<Format>, Refusal> {
    match query.get(FORMAT) {
        None => Ok(None),
        Some("json") => Ok(Some(Format::Json)),
        Some("text") => Ok(Some(Format::Text)),
        Some(value) => Err(not_one_of(value, FORMAT, known)),
    }
}

/// One element of `Accept` (RFC 9110, section 12.5.1), in lower case.
struct Range {
    /// Before the slash, or `*`.
    kind: String,
    /// After it, or `*`.
    subtype: String,
    /// Parameter `version`; empty if it is not there.
    version: String,
    /// Weight in thousandths; 0 for "not acceptable".
    quality: u16,
}

/// The value of `Accept`; elements that make no sense are left out.
struct Ranges(Vec<Range>);

impl Ranges {
    /// Takes a header apart. No header accepts everything.
    fn parse(header: Option<&[u8]>) -> Self {
        let text = String::from_utf8_lossy(header.unwrap_or(b"*/*")).to_ascii_lowercase();
        Self(text.split(',').filter_map(Range::parse).collect())
    }

    /// Weight of the element that names exactly this type.
    fn named(&self, kind: &str, subtype: &str) -> Option<u16> {
        self.0.iter().find(|range| range.kind == kind && range.subtype == subtype).map(|range| range.quality)
    }

    /// Weight of the metrics: programs that collect them ask for several versions and forms of them, and take any.
    fn metrics(&self) -> Option<u16> {
        let is_metrics = |range: &&Range| match (range.kind.as_str(), range.subtype.as_str()) {
            ("application", "openmetrics-text") => true,
            ("text", "plain") => matches!(range.version.as_str(), "0.0.4" | "1.0.0"),
            _ => false,
        };
        self.0.iter().filter(is_metrics).map(|range| range.quality).max()
    }

    /// Weight of a type: of the most exact element that it falls under; 0 if there is none.
    fn quality(&self, kind: &str, subtype: &str) -> u16 {
        let named = self.named(kind, subtype).or_else(|| self.named(kind, "*"));
        named.or_else(|| self.named("*", "*")).unwrap_or(0)
    }
}

impl Range {
    /// Takes an element apart. A weight that makes no sense counts as 1, as if it were not there.
    fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split(';').map(str::trim);
        let (kind, subtype) = parts.next()?.split_once('/')?;
        let parameters: Vec<_> = parts.filter_map(|part| part.split_once('=')).collect();
        let parameter =
            |name| parameters.iter().find(|(found, _)| *found == name).map(|(_, value)| value.trim());
        let quality = parameter("q").and_then(|value| value.parse::<f32>().ok());
        let quality = quality.filter(|value| (0.0..=1.0).contains(value)).unwrap_or(1.0);
        Some(Self {
            kind: kind.to_owned(),
            subtype: subtype.to_owned(),
            version: parameter("version").unwrap_or_default().trim_matches('"').to_owned(),
            // Between 0 and 1000.
            quality: (quality * 1000.0) as u16,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The form of a status page for a query and a header.
    fn status(query: &str, accept: Option<&str>) -> StatusFormat {
        for_status(&Query::parse(query.as_bytes()).unwrap(), accept.map(str::as_bytes)).unwrap()
    }

    /// The form of a control reply for a query and a header.
    fn control(query: &str, accept: Option<&str>) -> Format {
        for_control(&Query::parse(query.as_bytes()).unwrap(), accept.map(str::as_bytes)).unwrap()
    }

    #[test]
    fn the_header_chooses() {
        let table = [
            // header, status, control
            (None, StatusFormat::Json, Format::Text),
            (Some("*/*"), StatusFormat::Json, Format::Text),
            (Some(""), StatusFormat::Json, Format::Text),
            (Some("text/plain"), StatusFormat::Text, Format::Text),
            (Some("TEXT/Plain"), StatusFormat::Text, Format::Text),
            (Some("text/*"), StatusFormat::Text, Format::Text),
            (Some("image/png"), StatusFormat::Json, Format::Text),
            (Some("application/json"), StatusFormat::Json, Format::Json),
            (Some("Application/JSON; charset=utf-8"), StatusFormat::Json, Format::Json),
            (Some("application/json;q=0"), StatusFormat::Json, Format::Text),
            (Some("application/json; q=0, */*"), StatusFormat::Text, Format::Text),
            (Some("application/json;q=0.0, text/plain"), StatusFormat::Text, Format::Text),
            (Some("application/*"), StatusFormat::Json, Format::Text),
            (Some("application/json, text/plain, */*"), StatusFormat::Json, Format::Json),
            (Some("text/plain, application/json;q=0.5"), StatusFormat::Text, Format::Text),
            (Some("text/plain;q=0.2, application/json;q=0.5"), StatusFormat::Json, Format::Json),
            (
                Some("text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"),
                StatusFormat::Html,
                Format::Text,
            ),
            (Some("application/json;q=nonsense"), StatusFormat::Json, Format::Json),
            (Some(",;/,q=1"), StatusFormat::Json, Format::Text),
            (Some("text/html"), StatusFormat::Html, Format::Text),
            (Some("text/html;q=0"), StatusFormat::Json, Format::Text),
            (Some("text/html, application/json"), StatusFormat::Json, Format::Json),
            (Some("text/html;q=0.5, text/plain"), StatusFormat::Text, Format::Text),
            (Some("text/html, text/plain"), StatusFormat::Html, Format::Text),
            (
                Some(
                    "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.3,*/*;q=0.2",
                ),
                StatusFormat::Prometheus,
                Format::Text,
            ),
            (Some("text/plain; version=0.0.4"), StatusFormat::Prometheus, Format::Text),
            (Some("text/plain;version=\"0.0.4\";q=0.1"), StatusFormat::Prometheus, Format::Text),
            (Some("text/plain;version=0.0.4;q=0, */*"), StatusFormat::Json, Format::Text),
            (Some("text/plain;version=2"), StatusFormat::Text, Format::Text),
            (Some("application/openmetrics-text;q=0.1, application/json"), StatusFormat::Json, Format::Json),
        ];
        for (accept, wanted_status, wanted_control) in table {
            assert_eq!(status("", accept), wanted_status, "status, {accept:?}");
            assert_eq!(control("", accept), wanted_control, "control, {accept:?}");
        }
    }

    #[test]
    fn the_argument_comes_before_the_header() {
        assert_eq!(status("format=text", Some("application/json")), StatusFormat::Text);
        assert_eq!(status("format=json", Some("text/html")), StatusFormat::Json);
        assert_eq!(status("format=html", Some("*/*")), StatusFormat::Html);
        assert_eq!(status("format=prometheus", Some("text/html")), StatusFormat::Prometheus);
        assert_eq!(control("format=json", Some("*/*")), Format::Json);
        assert_eq!(control("format=text", Some("application/json")), Format::Text);
    }

    #[test]
    fn an_unknown_form_is_refused() {
        for query in ["format=xml", "format=", "format=html", "format=prometheus"] {
            let error = for_control(&Query::parse(query.as_bytes()).unwrap(), None).unwrap_err();
            let value = query.trim_start_matches("format=");
            assert_eq!(
                error.text,
                format!("invalid value \"{value}\" in \"format\", it must be \"json\" or \"text\"")
            );
            assert_eq!(error.kind.status(), 400);
        }
    }
}
