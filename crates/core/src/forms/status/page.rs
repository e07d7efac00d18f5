//! The page: one file, which fetches the status as JSON and shows it. It is joined from `dashboard/` when the module is
//! built, and the same for everybody, but for the place that changes are sent to.

use super::super::markup::escape;

// HEAD and TAIL, which the value of an attribute belongs between, and POLICY.
include!(concat!(env!("OUT_DIR"), "/dashboard.rs"));

/// The page; `control` is where it sends changes, without which it offers none.
pub fn page(control: Option<&str>) -> String {
    let control = escape(control.unwrap_or_default());
    [HEAD, &control, TAIL].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_uri_is_the_value_of_an_attribute() {
        assert!(HEAD.starts_with("<!doctype html>"));
        assert!(HEAD.ends_with("data-control=\"") && TAIL.starts_with('"'));
        assert!(page(Some("/c\"><script>")).contains("data-control=\"/c&quot;&gt;&lt;script&gt;\""));
        assert!(page(None).contains("data-control=\"\""));
    }

    #[test]
    fn nothing_is_asked_of_others() {
        let page = page(None);
        for word in ["src=", "href=", "url(", "@import", "innerHTML", "style=\"", "<!--"] {
            assert!(!page.contains(word), "{word}");
        }
    }

    #[test]
    fn the_policy_allows_the_page_and_nothing_else() {
        assert!(POLICY.starts_with("default-src 'none'; style-src 'sha256-"));
        assert!(!POLICY.contains("unsafe"));
    }
}
