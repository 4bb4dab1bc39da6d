//! Makes a tree of what the YAML parser tells.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};

use granit_parser::{ErrorKind, Event, Parser, ScalarStyle, ScanError, Span, StrInput, options};

use super::node::{Name, Node, Value};
use super::problem::Place;
use super::scalar;

/// What is wrong with a text, and what to do. The parser's own words quote the text.
pub(super) type Words = (&'static str, &'static str);

/// Which of the two would win is not to be guessed. The name is not shown: it may be a secret at the wrong place.
const DOUBLED: Words =
    ("a name appears twice in this mapping", "keep one of them: which one would win is not to be guessed");
const INVALID: Words =
    ("this is not valid YAML", "look at the indentation, brackets and quotes here and in the line before");
const SECOND: Words = (
    "a second document begins here, after a `---`",
    "a file is one document: remove the `---`, or split the file",
);
const TOO_MUCH: Words = (
    "this is nested deeper, or holds more, than any file of ours",
    "look for a bracket that is never closed, or aliases (`*name`) of aliases",
);
const NO_ANCHOR: Words = (
    "an alias (`*name`) of something that has no anchor (`&name`)",
    "put a text that begins with `*` in quotes",
);

/// Ours are seven deep, and each level takes stack.
const DEEPEST: usize = 24;
/// A million keys, each with a dozen values and names.
const MOST: usize = 32_000_000;
/// As many of them may be copies that aliases made: a few lines of aliases of aliases would fill the memory.
const MOST_COPIES: usize = 1_000_000;
/// So many names are compared one by one.
const FEW: usize = 16;

/// Where a text is wrong, and how.
pub(super) type Refused = (Place, Words);

/// The name of a list, and who takes its items.
pub(super) type Rows<'r> = (&'static str, &'r mut dyn FnMut(Node));

/// The tree of a text.
pub(super) fn read(text: &str, rows: Option<Rows<'_>>) -> Result<Node, Refused> {
    // Whoever else is built in may want comments of this parser, and it would tell us of them too.
    let events = Parser::new_from_str_with_options(text, options! { emit_comments: false });
    let anchors = HashMap::new();
    Reader { events, anchors, depth: 0, left: MOST, copies: MOST_COPIES, rows }.document()
}

struct Reader<'t, 'r> {
    events: Parser<'t, StrInput<'t>>,
    /// What has a name that aliases may use.
    anchors: HashMap<usize, Node>,
    depth: usize,
    /// So many nodes and names more may be made.
    left: usize,
    /// So many more may be copied.
    copies: usize,
    /// Until its list has been met.
    rows: Option<Rows<'r>>,
}

impl<'t> Reader<'t, '_> {
    fn document(&mut self) -> Result<Node, Refused> {
        loop {
            match self.next()? {
                (Event::StreamStart | Event::DocumentStart(..), _) => {}
                (Event::StreamEnd, place) => return Ok(Node { place, value: Value::Nothing }),
                (event, place) => {
                    let node = self.node(event, place)?;
                    return self.end().map(|()| node);
                }
            }
        }
    }

    fn end(&mut self) -> Result<(), Refused> {
        loop {
            match self.next()? {
                (Event::DocumentEnd | Event::DocumentStart(..), _) => {}
                (Event::StreamEnd, _) => return Ok(()),
                (_, place) => return Err((place, SECOND)),
            }
        }
    }

    fn next(&mut self) -> Result<(Event<'t>, Place), Refused> {
        match self.events.next_event() {
            Some(Ok((mut event, Span { start, end, .. }))) => {
                if let Event::Scalar(text, ScalarStyle::Plain, ..) = &mut event
                    && start.index() == end.index()
                {
                    // The parser's word for one that is not there.
                    *text = Cow::Borrowed("");
                }
                Ok((event, place(start.line(), start.col())))
            }
            Some(Err(error)) => Err(refused(&error)),
            None => Err((place(1, 0), INVALID)),
        }
    }

    #[allow(clippy::wildcard_enum_match_arm, reason = "the parser may learn other events")]
    fn node(&mut self, event: Event<'t>, place: Place) -> Result<Node, Refused> {
        self.count(place)?;
        let (value, anchor) = match event {
            Event::Scalar(text, style, anchor, tag) => {
                let value = scalar::read(text, style == ScalarStyle::Plain, tag.as_deref());
                (value.ok_or((place, INVALID))?, anchor)
            }
            Event::SequenceStart(_, anchor, tag) if scalar::may_be("seq", tag.as_deref()) => {
                (self.deeper(place, Self::list)?, anchor)
            }
            Event::MappingStart(_, anchor, tag) if scalar::may_be("map", tag.as_deref()) => {
                (self.deeper(place, Self::mapping)?, anchor)
            }
            Event::Alias(anchor) => {
                // One that stands in what it names is not there yet.
                let value = self.anchors.get(&anchor).ok_or((place, INVALID))?.value.clone();
                self.copies = self.copies.checked_sub(size(&value)).ok_or((place, TOO_MUCH))?;
                (value, 0)
            }
            _ => return Err((place, INVALID)),
        };
        let node = Node { place, value };
        if anchor != 0 {
            self.anchors.insert(anchor, node.clone());
        }
        Ok(node)
    }

    fn count(&mut self, place: Place) -> Result<(), Refused> {
        self.left = self.left.checked_sub(1).ok_or((place, TOO_MUCH))?;
        Ok(())
    }

    fn deeper(
        &mut self,
        place: Place,
        read: impl FnOnce(&mut Self) -> Result<Value, Refused>,
    ) -> Result<Value, Refused> {
        if self.depth == DEEPEST {
            return Err((place, TOO_MUCH));
        }
        self.depth += 1;
        let value = read(self);
        self.depth -= 1;
        value
    }

    fn list(&mut self) -> Result<Value, Refused> {
        let mut items = Vec::new();
        loop {
            match self.next()? {
                (Event::SequenceEnd, _) => return Ok(Value::List(items)),
                (event, place) => items.push(self.node(event, place)?),
            }
        }
    }

    fn hand_over(&mut self, take: &mut dyn FnMut(Node)) -> Result<Value, Refused> {
        loop {
            match self.next()? {
                (Event::SequenceEnd, _) => return Ok(Value::List(Vec::new())),
                (event, place) => take(self.node(event, place)?),
            }
        }
    }

    fn mapping(&mut self) -> Result<Value, Refused> {
        let (mut entries, mut merged) = (Vec::new(), None);
        loop {
            let (event, place) = match self.next()? {
                (Event::MappingEnd, _) => break,
                next => next,
            };
            let merge = matches!(&event, Event::Scalar(text, ScalarStyle::Plain, _, None) if text == "<<");
            let name = self.name(event, place)?;
            let value = self.value(&name.text)?;
            if !merge {
                entries.push((name, value));
            } else if merged.replace(value).is_some() {
                return Err((place, DOUBLED));
            }
        }
        doubled(&entries)?;
        merged.map_or(Ok(()), |merged| merge(merged, &mut entries))?;
        Ok(Value::Mapping(entries))
    }

    fn value(&mut self, name: &str) -> Result<Node, Refused> {
        let (event, place) = self.next()?;
        let is_rows = self.depth == 1
            && matches!(event, Event::SequenceStart(_, 0, _))
            && self.rows.as_ref().is_some_and(|(list, _)| *list == name);
        match self.rows.take_if(|_| is_rows) {
            Some((_, take)) => {
                let value = self.deeper(place, |this| this.hand_over(take))?;
                Ok(Node { place, value })
            }
            None => self.node(event, place),
        }
    }

    #[allow(clippy::wildcard_enum_match_arm, reason = "the parser may learn other events")]
    fn name(&mut self, event: Event<'t>, place: Place) -> Result<Name, Refused> {
        self.count(place)?;
        let text = match event {
            Event::Scalar(text, style, anchor, tag) => {
                let plain = style == ScalarStyle::Plain;
                let text = scalar::name(text, plain, tag.as_deref()).ok_or((place, INVALID))?;
                if anchor != 0 {
                    self.anchors.insert(anchor, Node { place, value: Value::Text(text.clone()) });
                }
                text
            }
            Event::Alias(anchor) => match self.anchors.get(&anchor) {
                Some(Node { value: Value::Text(text), .. }) => text.clone(),
                _ => return Err((place, INVALID)),
            },
            _ => return Err((place, INVALID)),
        };
        Ok(Name { place, text })
    }
}

fn place(line: usize, column: usize) -> Place {
    let number = |number| u32::try_from(number).unwrap_or(u32::MAX);
    Place { line: number(line), column: number(column).saturating_add(1) }
}

fn refused(error: &ScanError) -> Refused {
    let words = if *error.kind() == ErrorKind::UnknownAnchor { NO_ANCHOR } else { INVALID };
    (place(error.marker().line(), error.marker().col()), words)
}

/// How many nodes and names a value is.
fn size(value: &Value) -> usize {
    match value {
        Value::List(items) => items.iter().map(|item| size(&item.value)).sum::<usize>() + 1,
        Value::Mapping(entries) => entries.iter().map(|(_, node)| size(&node.value) + 1).sum::<usize>() + 1,
        Value::Nothing | Value::Bool(_) | Value::Whole(_) | Value::Fraction(_) | Value::Text(_) => 1,
    }
}

/// The first name that stands twice is one too many.
fn doubled(entries: &[(Name, Node)]) -> Result<(), Refused> {
    let mut seen = HashSet::new();
    for (number, (Name { place, text }, _)) in entries.iter().enumerate() {
        let known = if entries.len() <= FEW {
            entries.iter().take(number).any(|(known, _)| known.text == *text)
        } else {
            !seen.insert(text.as_str())
        };
        if known {
            return Err((*place, DOUBLED));
        }
    }
    Ok(())
}

/// `<<: *name`: the entries of another mapping, or several, behind those that are written; what is written wins.
fn merge(from: Node, into: &mut Vec<(Name, Node)>) -> Result<(), Refused> {
    match from.value {
        Value::Mapping(entries) => {
            for (name, node) in entries {
                if !into.iter().any(|(known, _)| known.text == name.text) {
                    into.push((name, node));
                }
            }
            Ok(())
        }
        Value::List(items) => items.into_iter().try_for_each(|item| {
            if matches!(item.value, Value::Mapping(_)) {
                merge(item, into)
            } else {
                Err((item.place, INVALID))
            }
        }),
        Value::Nothing => Ok(()),
        Value::Bool(_) | Value::Whole(_) | Value::Fraction(_) | Value::Text(_) => Err((from.place, INVALID)),
    }
}
