//! Texts that may be a configuration or a keys file.

use std::path::Path;

use scopegate::config::file::{parse, parse_keys};
use scopegate::config::problem::Problems;
use scopegate::config::route::Segment;
use scopegate::decide::Policy;
use scopegate::decide::path::Path as Asked;
use scopegate::decide::route::{Matched, Router};
use scopegate::identity::scope::Scopes;
use scopegate::keys::table::Table;

pub fn run(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    let file = Path::new("f.yaml");
    match parse(file, text) {
        Err(problems) => {
            assert!(problems.errors() > 0, "who is refused is told why");
            places(text, &problems);
        }
        Ok(read) => {
            assert_eq!(read.problems.errors(), 0);
            places(text, &read.problems);
            let live = read.value.live;
            let policy = Policy::new(&live);
            assert_eq!(
                policy.routes.len(),
                live.surfaces.iter().map(|surface| surface.routes.len()).sum::<usize>()
            );
            found(&live.surfaces);
        }
    }
    let scopes = Scopes::new(vec!["S".into()]);
    match parse_keys(file, text, &scopes) {
        Err(problems) => {
            assert!(problems.errors() > 0, "who is refused is told why");
            places(text, &problems);
        }
        Ok(read) => {
            places(text, &read.problems);
            assert!(
                read.problems.errors() >= read.value.refused.min(1),
                "a row is not left out without a word"
            );
            assert_eq!(
                Table::new(&read.value, &scopes).len(),
                read.value.keys.len(),
                "no two with one digest"
            );
        }
    }
}

/// A problem is somewhere in the text, and can be printed.
fn places(text: &str, problems: &Problems) {
    let lines = text.split(['\n', '\r']).count();
    for problem in problems {
        assert!(!problem.message.is_empty() && !problem.to_string().is_empty());
        if let Some(place) = problem.place {
            assert!(place.line >= 1 && place.line as usize <= lines, "{place:?} of {lines} lines");
            assert!(place.column >= 1 && place.column as usize <= text.len() + 1, "{place:?}");
        }
    }
}

/// Every route that was written can be asked for.
fn found(surfaces: &[scopegate::config::surface::Surface]) {
    let routes: Vec<_> = surfaces.iter().flat_map(|surface| &surface.routes).collect();
    let mut router = Router::default();
    for (id, route) in routes.iter().enumerate() {
        router.add(route, id);
    }
    for (id, route) in routes.iter().enumerate() {
        let segments = route.pattern.segments.iter().map(|segment| match segment {
            Segment::Literal(text) => format!("/{text}"),
            Segment::Param => "/%7B%7D".to_owned(),
        });
        let path: String = segments.chain(route.pattern.rest.then(|| "/%7B/%7D".to_owned())).collect();
        let path = if path.is_empty() { "/" } else { &path };
        let method = route.method.as_deref().unwrap_or("{}");
        let got = router.find(method, Asked::read(path).expect("one reading"));
        assert!(matches!(got, Matched::Route { id: got, .. } if got == id), "{path}: {got:?}, not {id}");
    }
}
