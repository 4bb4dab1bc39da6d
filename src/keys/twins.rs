//! What two files of a folder both say: neither is believed.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};
use std::hash::Hash;
use std::sync::Arc;

use super::pace::Pace;
use super::table::{Part, Spot};
use crate::config::problem::{Place, Problem, Problems, Severity};

const TEAM: &str = "neither opens anything, nor does any key of theirs: write all of a team in one file";
const ID: &str = "neither row opens anything: give each an id of its own";
const DIGEST: &str = "neither row opens anything: keep one of them";

/// The keys that are left out since another file has their id, their digest or a team of their team's name, and what is to
/// be said of it. What is twice in one file is told by who reads that.
pub(super) fn between(parts: &[Arc<Part>], pace: &mut Pace) -> (HashSet<Spot>, Problems) {
    let (mut lost, mut problems) = (HashSet::new(), Problems::default());
    if parts.len() < 2 {
        return (lost, problems);
    }
    let teams = twins(parts, |part, row| Some(&*part.team_places.get(row)?.0), pace);
    let (ids, digests) = (twins(parts, |part, row| part.id(row), pace), twins(parts, Part::digest, pace));
    let team_place = |part: &Part, row: usize| Some(part.team_places.get(row)?.1);
    for (number, part) in parts.iter().enumerate() {
        let mut names = HashSet::new();
        for (row, (name, place)) in part.team_places.iter().enumerate() {
            if let Some(twin) = teams.get(&Spot::new(number, row)) {
                names.insert(&**name);
                problems.push(problem(
                    part,
                    *place,
                    &format!("team `{name}`"),
                    &at(parts, *twin, team_place),
                    TEAM,
                ));
            }
        }
        let replaced: HashMap<_, _> = part
            .replacements()
            .filter_map(|(place, row)| Some((row, digests.get(&Spot::new(number, place))?)))
            .collect();
        for row in 0..part.len() {
            pace.step();
            let spot = Spot::new(number, row);
            let (id, digest) = (ids.get(&spot), digests.get(&spot).or_else(|| replaced.get(&row).copied()));
            if id.or(digest).is_some() || part.team(row).is_some_and(|team| names.contains(team)) {
                lost.insert(spot);
            }
            let Some((place, name)) = part.place(row).zip(part.id(row)) else { continue };
            if let Some(twin) = id {
                let what = format!("key `{name}`");
                problems.push(problem(part, place, &what, &at(parts, *twin, Part::place), ID));
            } else if let Some(twin) = digest {
                let what = format!("the digest of key `{name}`");
                problems.push(problem(part, place, &what, &at(parts, *twin, Part::place), DIGEST));
            }
        }
    }
    (lost, problems)
}

/// What stands in another file too, and where: for the first file that is the next, for the others the first.
fn twins<'p, T: Eq + Hash>(
    parts: &'p [Arc<Part>],
    of: impl Fn(&'p Part, usize) -> Option<T>,
    pace: &mut Pace,
) -> HashMap<Spot, Spot> {
    let (mut first, mut twins) = (HashMap::new(), HashMap::new());
    for (number, part) in parts.iter().enumerate() {
        for row in 0..part.rows() {
            pace.step();
            let (spot, Some(value)) = (Spot::new(number, row), of(part, row)) else { continue };
            match first.entry(value) {
                Entry::Vacant(entry) => {
                    entry.insert(spot);
                }
                Entry::Occupied(entry) if entry.get().part == spot.part => {}
                Entry::Occupied(entry) => {
                    twins.insert(spot, *entry.get());
                    twins.entry(*entry.get()).or_insert(spot);
                }
            }
        }
    }
    twins
}

/// `file:line` of what stands there.
fn at(parts: &[Arc<Part>], spot: Spot, place: impl Fn(&Part, usize) -> Option<Place>) -> String {
    let part = parts.get(spot.part as usize).expect("a spot is in one of the parts");
    let line = place(part, spot.row as usize).map_or(0, |place| place.line);
    format!("{}:{line}", part.path.display())
}

fn problem(part: &Part, place: Place, what: &str, twin: &str, hint: &str) -> Problem {
    Problem {
        file: part.path.clone(),
        place: Some(place),
        severity: Severity::Error,
        message: format!("{what} is in {twin} too"),
        hint: Some(hint.to_owned()),
    }
}
