//! What stands before a route's colon: `METHOD /path?query`.

use super::fields::Report;
use super::problem::Place;
use super::route::{Pattern, Segment};

/// Which calls a route takes.
#[derive(Debug, PartialEq)]
pub(super) struct Head {
    pub(super) method: Option<Box<str>>,
    pub(super) pattern: Pattern,
    pub(super) query: Vec<Box<str>>,
}

impl Head {
    /// Reads one line. Handshakes of a channel are GETs.
    pub(super) fn read(line: &str, place: Place, channel: bool, report: &mut Report<'_>) -> Option<Self> {
        let mut words = line.split_whitespace();
        let (method, target) = match (words.next(), words.next(), words.next()) {
            (Some(target), None, _) => (None, target),
            (Some(method), Some(target), None) => (Some(method), target),
            _ => {
                let hint = "write it as `GET /path`, or `/path` for any method";
                report.error(place, format!("`{line}` is not a route"), hint);
                return None;
            }
        };
        if let Some(method) = method
            && !method.bytes().all(|byte| byte.is_ascii_uppercase() || byte == b'-')
        {
            let hint =
                "methods are one word in capitals, and a route has one: write two lines for two methods";
            report.error(place, format!("`{method}` is not a method"), hint);
            return None;
        }
        if channel && method != Some("GET") {
            let hint = "a WebSocket handshake is a GET: write `GET` before the path";
            report.error(place, format!("`{line}` is not a route of a channel"), hint);
        }
        let (path, names) =
            target.split_once('?').map_or((target, None), |(path, names)| (path, Some(names)));
        let names: Vec<&str> = names.map(|names| names.split('&').collect()).unwrap_or_default();
        for (number, name) in names.iter().enumerate() {
            let good = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte));
            if name.is_empty() || !good || names.iter().take(number).any(|known| known == name) {
                let message = format!("`{target}` does not name its query parameters");
                report.error(place, message, "write their names alone, each once: `?sessionId&token`");
                return None;
            }
        }
        let pattern = pattern(path).map_err(|(message, hint)| report.error(place, message, hint)).ok()?;
        let query = names.into_iter().map(Box::from).collect();
        Some(Self { method: method.map(Box::from), pattern, query })
    }
}

/// A message and a hint where it is none.
fn pattern(path: &str) -> Result<Pattern, (String, &'static str)> {
    let (before, rest) = path.strip_suffix("/**").map_or((path, false), |before| (before, true));
    let pieces = match before.strip_prefix('/') {
        Some(inside) => inside,
        None if rest && before.is_empty() => "",
        None => return Err((format!("`{path}` does not start with a slash"), "write it as `/path`")),
    };
    let alone = before == "/" && !rest || before.is_empty();
    let pieces = pieces.split('/').filter(|_| !alone);
    let segments = pieces.map(|piece| segment(piece, path)).collect::<Result<_, _>>()?;
    Ok(Pattern { template: path.into(), segments, rest })
}

fn segment(piece: &str, path: &str) -> Result<Segment, (String, &'static str)> {
    let literal = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~!$&'()+,=:@".contains(&byte);
    let name = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    let wrong = match piece.strip_prefix('{').and_then(|inner| inner.strip_suffix('}')) {
        Some(inner) if !inner.is_empty() && inner.bytes().all(name) => return Ok(Segment::Param),
        Some(_) => (format!("`{piece}` is not a parameter"), "name it with letters, digits and `_`: `{id}`"),
        None if piece.is_empty() => (
            format!("`{path}` has an empty segment"),
            "a trailing or doubled slash is another path to some servers; leave it out, or end in `/**`",
        ),
        None if piece == "." || piece == ".." => {
            (format!("`{path}` has a dot segment"), "write the path that is meant")
        }
        None if piece.contains('*') => {
            (format!("`{piece}` holds a `*`"), "`/**` stands at the end, and `{name}` for one segment")
        }
        None if piece.bytes().all(literal) => return Ok(Segment::Literal(piece.into())),
        None => (
            format!("`{piece}` cannot stand in a route"),
            "literals are matched after decoding: write letters, digits and -._~!$&'()+,=:@, and whole segments as `{name}`",
        ),
    };
    Err(wrong)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// `METHOD literal {} ** ?names`, or what is wrong.
    fn read(line: &str) -> String {
        let mut report = Report::new(std::path::Path::new("f"));
        let Some(head) = Head::read(line, Place { line: 1, column: 1 }, false, &mut report) else {
            let problems = report.into_problems();
            return problems.iter().map(|problem| problem.message.clone()).collect();
        };
        assert_eq!(report.errors(), 0, "{line}");
        let mut said = vec![head.method.map_or_else(|| "any".to_owned(), String::from)];
        said.extend(head.pattern.segments.into_iter().map(|segment| match segment {
            Segment::Literal(text) => text.into(),
            Segment::Param => "{}".to_owned(),
        }));
        said.extend(head.pattern.rest.then(|| "**".to_owned()));
        said.extend(head.query.iter().map(|name| format!("?{name}")));
        said.join(" ")
    }

    fn check(line: &str, wanted: &str) {
        assert_eq!(read(line), wanted, "{line}");
    }

    #[test]
    fn routes() {
        check("GET /", "GET");
        check("/", "any");
        check("/**", "any **");
        check("GET   /api/v1/apps/**", "GET api v1 apps **");
        check("M-SEARCH /a/{id}/b", "M-SEARCH a {} b");
        check("GET /ws?sessionId&token", "GET ws ?sessionId ?token");
        check("/a:b@c", "any a:b@c");
    }

    /// Each of these, read otherwise, would take more paths than were written.
    #[test]
    fn what_could_be_read_in_two_ways_is_refused() {
        check("", "`` is not a route");
        check("GET", "`GET` does not start with a slash");
        check("**", "`**` does not start with a slash");
        check("a/**", "`a/**` does not start with a slash");
        check("//", "`//` has an empty segment");
        check("//**", "`//**` has an empty segment");
        check("/x//**", "`/x//**` has an empty segment");
        check("/x/", "`/x/` has an empty segment");
        check("/x/./y", "`/x/./y` has a dot segment");
        check("/../**", "`/../**` has a dot segment");
        check("/a**", "`a**` holds a `*`");
        check("/**/**", "`**` holds a `*`");
        check("/a\\b", "`a\\b` cannot stand in a route");
        check("/a#b", "`a#b` cannot stand in a route");
        check("/a?b?c", "`/a?b?c` does not name its query parameters");
        check("/a?&b", "`/a?&b` does not name its query parameters");
    }

    proptest! {
        #[test]
        fn no_line_panics(line in "\\PC*|[A-Z]{0,4} ?[/a*{}.?&%;]{0,12}") {
            let _ = read(&line);
        }

        /// What was accepted is what was written: joined again, its segments are its path.
        #[test]
        fn segments_are_the_path(path in "(/|/[a{}*.]{1,3}){1,4}") {
            let Ok(found) = pattern(&path) else { return Ok(()) };
            let slashes = found.segments.len() + usize::from(found.rest);
            prop_assert_eq!(slashes.max(1), path.matches('/').count());
        }
    }
}
