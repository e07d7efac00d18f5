//! Which form a reply takes.

use crate::model::query::Query;

use super::arguments::invalid;
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

/// The form for a status page: JSON, unless text is preferred to it.
///
/// # Errors
///
/// If `format=` has an unknown value.
pub fn for_status(query: &Query, accept: Option<&[u8]>) -> Result<Format, Refusal> {
    named(query).map(|named| {
        named.unwrap_or_else(|| {
            let accept = Ranges::parse(accept);
            if accept.quality("text", "plain") > accept.quality("application", "json") {
                Format::Text
            } else {
                Format::Json
            }
        })
    })
}

/// The form for a control request: text as ever, unless JSON is asked for by its name.
///
/// # Errors
///
/// If `format=` has an unknown value.
pub fn for_control(query: &Query, accept: Option<&[u8]>) -> Result<Format, Refusal> {
    named(query).map(|named| named.unwrap_or_else(|| by_header(accept)))
}

/// The form of a reply to a control request whose arguments could not be read.
pub fn by_header(accept: Option<&[u8]>) -> Format {
    let accept = Ranges::parse(accept);
    let json = accept.named("application", "json").unwrap_or(0);
    if json > 0 && json >= accept.named("text", "plain").unwrap_or(0) { Format::Json } else { Format::Text }
}

/// The form that `format=` names.
fn named(query: &Query) -> Result<Option<Format>, Refusal> {
    match query.get(FORMAT) {
        None => Ok(None),
        Some("json") => Ok(Some(Format::Json)),
        Some("text") => Ok(Some(Format::Text)),
        Some(value) => Err(invalid(value, FORMAT)),
    }
}

/// One element of `Accept` (RFC 9110, section 12.5.1), in lower case.
struct Range {
    /// Before the slash, or `*`.
    kind: String,
    /// After it, or `*`.
    subtype: String,
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
        let quality =
            parts.find_map(|part| part.strip_prefix("q=")).and_then(|value| value.trim().parse::<f32>().ok());
        let quality = quality.filter(|value| (0.0..=1.0).contains(value)).unwrap_or(1.0);
        Some(Self {
            kind: kind.to_owned(),
            subtype: subtype.to_owned(),
            // Between 0 and 1000.
            quality: (quality * 1000.0) as u16,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The form of a status page for a query and a header.
    fn status(query: &str, accept: Option<&str>) -> Format {
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
            (None, Format::Json, Format::Text),
            (Some("*/*"), Format::Json, Format::Text),
            (Some(""), Format::Json, Format::Text),
            (Some("text/plain"), Format::Text, Format::Text),
            (Some("TEXT/Plain"), Format::Text, Format::Text),
            (Some("text/*"), Format::Text, Format::Text),
            (Some("image/png"), Format::Json, Format::Text),
            (Some("application/json"), Format::Json, Format::Json),
            (Some("Application/JSON; charset=utf-8"), Format::Json, Format::Json),
            (Some("application/json;q=0"), Format::Json, Format::Text),
            (Some("application/json; q=0, */*"), Format::Text, Format::Text),
            (Some("application/json;q=0.0, text/plain"), Format::Text, Format::Text),
            (Some("application/*"), Format::Json, Format::Text),
            (Some("application/json, text/plain, */*"), Format::Json, Format::Json),
            (Some("text/plain, application/json;q=0.5"), Format::Text, Format::Text),
            (Some("text/plain;q=0.2, application/json;q=0.5"), Format::Json, Format::Json),
            (
                Some("text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"),
                Format::Json,
                Format::Text,
            ),
            (Some("application/json;q=nonsense"), Format::Json, Format::Json),
            (Some(",;/,q=1"), Format::Json, Format::Text),
        ];
        for (accept, wanted_status, wanted_control) in table {
            assert_eq!(status("", accept), wanted_status, "status, {accept:?}");
            assert_eq!(control("", accept), wanted_control, "control, {accept:?}");
        }
    }

    #[test]
    fn the_argument_comes_before_the_header() {
        assert_eq!(status("format=text", Some("application/json")), Format::Text);
        assert_eq!(status("format=json", Some("text/plain")), Format::Json);
        assert_eq!(control("format=json", Some("*/*")), Format::Json);
        assert_eq!(control("format=text", Some("application/json")), Format::Text);
    }

    #[test]
    fn an_unknown_form_is_refused() {
        for query in ["format=xml", "format="] {
            let error = for_control(&Query::parse(query.as_bytes()).unwrap(), None).unwrap_err();
            let value = query.trim_start_matches("format=");
            assert_eq!(error.text, format!("invalid value \"{value}\" in \"format\""));
            assert_eq!(error.kind.status(), 400);
        }
    }
}
