//! Media types of bodies.

/// The media type of a form.
pub const FORM: &str = "application/x-www-form-urlencoded";

/// Whether `Content-Type` names a form.
pub fn is_form(content_type: Option<&[u8]>) -> bool {
    is_media(content_type, FORM)
}

/// Whether `Content-Type` names this media type.
pub fn is_media(content_type: Option<&[u8]>, media: &str) -> bool {
    let essence = content_type.and_then(|value| value.split(|byte| *byte == b';').next());
    essence.is_some_and(|essence| essence.trim_ascii().eq_ignore_ascii_case(media.as_bytes()))
}
