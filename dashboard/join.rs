//! Joins the page into one file. Part of the build script.
//!
//! `index.html` names its style and its scripts as any page does, one tag a line, so that it can be worked on as it is.
//! Here each of these tags becomes a block with the file inside it, and the policy of the page gets the hash of the
//! block: a browser runs these and nothing else.

use std::fmt::Write;
use std::fs;
use std::path::Path;

use super::sha256;

/// What the module is to know of the page.
pub struct Page {
    /// What comes before the URI of the control location.
    pub head: String,
    /// What comes after it.
    pub tail: String,
    /// Value of `Content-Security-Policy`.
    pub policy: String,
}

/// The attribute whose value the module writes.
const HOLE: &str = "data-control=\"";

/// Joins the page in `folder`; the error says what is wrong with it.
pub fn join(folder: &Path) -> Result<Page, String> {
    let read = |name: &str| {
        let path = folder.join(name);
        fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display()))
    };
    let (mut page, mut styles, mut scripts) = (String::new(), String::new(), String::new());
    for line in read("index.html")?.lines() {
        let tag = line.trim();
        if let Some(name) = between(tag, "<link rel=\"stylesheet\" href=\"", "\">") {
            block(&mut page, &mut styles, "style", &read(name)?)?;
        } else if let Some(name) = between(tag, "<script src=\"", "\"></script>") {
            block(&mut page, &mut scripts, "script", &read(name)?)?;
        } else {
            page.push_str(line);
            page.push('\n');
        }
    }
    let (head, tail) = page.split_once(HOLE).ok_or("index.html: no data-control")?;
    let policy = format!(
        "default-src 'none'; style-src{styles}; script-src{scripts}; connect-src 'self'; base-uri 'none'; \
         form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'"
    );
    Ok(Page { head: format!("{head}{HOLE}"), tail: tail.to_owned(), policy })
}

/// What stands between two words that a text begins and ends with.
fn between<'a>(text: &'a str, begin: &str, end: &str) -> Option<&'a str> {
    text.strip_prefix(begin)?.strip_suffix(end)
}

/// Adds a block to the page, and its hash to those that are allowed.
fn block(page: &mut String, hashes: &mut String, tag: &str, text: &str) -> Result<(), String> {
    // Browsers look for these before they know of strings and comments.
    if text.contains("</") || text.contains("<!--") {
        return Err(format!("a {tag} holds \"</\" or \"<!--\", which would end it"));
    }
    let _ = writeln!(page, "<{tag}>{text}</{tag}>");
    let _ = write!(hashes, " 'sha256-{}'", sha256::base64(&sha256::digest(text.as_bytes())));
    Ok(())
}
