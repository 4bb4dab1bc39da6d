//! What two rows of a file both say.

use std::collections::HashMap;
use std::hash::{BuildHasher as _, Hash, RandomState};

use hashbrown::HashTable;

use super::problem::Place;

/// What rows have in common with another, by the row and which of its two values that is, and where the other is: of the
/// first, the last; of any other, the first.
pub(super) fn twins<'r, R, T: Eq + Hash>(
    rows: &'r [R],
    place: impl Fn(&R) -> Place,
    of: impl Fn(&'r R) -> [Option<T>; 2],
    rest: &mut dyn FnMut(),
) -> HashMap<(usize, usize), Place> {
    let (hasher, mut twins) = (RandomState::new(), HashMap::new());
    let at =
        |(number, which): (usize, usize)| rows.get(number).and_then(|row| of(row).into_iter().nth(which)?);
    let stands = |(number, _): (usize, usize)| rows.get(number).map(&place);
    let mut first = HashTable::<(usize, usize)>::with_capacity(rows.len());
    for spot in (0..rows.len()).flat_map(|number| [(number, 0), (number, 1)]) {
        rest();
        let Some(value) = at(spot) else { continue };
        let hash = hasher.hash_one(&value);
        match first.find(hash, |spot| at(*spot).as_ref() == Some(&value)) {
            None => {
                first.insert_unique(hash, spot, |spot| hasher.hash_one(at(*spot)));
            }
            // A row that says the same twice is told so where it is read.
            Some(other) if other.0 == spot.0 => {}
            Some(other) => {
                twins.extend(stands(*other).map(|place| (spot, place)));
                twins.extend(stands(spot).map(|place| (*other, place)));
            }
        }
    }
    twins
}
