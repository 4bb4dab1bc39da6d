//! Scopes in a server's rows that the platform does not define: they open nothing, and the row is good for the rest of it.

use super::keeper::Keeper;
use super::row::Row;
use crate::observe::seldom::Seldom;

/// Names that a line of the log has room for, and characters of each: a server's row may hold anything.
const NAMES: usize = 8;
const CHARACTERS: usize = 64;

/// Says so once in a while.
#[derive(Debug, Default)]
pub(super) struct Undefined(Seldom);

impl Undefined {
    /// Counts those of a row that has come, since a platform's set grows and rows may be ahead of `scopes:`.
    pub(super) fn look(&self, row: Option<&Row>, Keeper { name, platform, meters, .. }: &Keeper) {
        let undefined = row.map(|row| row.undefined(platform)).unwrap_or_default();
        let Some(row) = row.filter(|_| !undefined.is_empty()) else { return };
        meters.scopes_undefined.inc_by(undefined.len() as u64);
        if self.0.is_time() {
            let shown = |name: &&str| name.chars().filter(|c| !c.is_control()).take(CHARACTERS).collect();
            let scopes = undefined.iter().take(NAMES).map(shown).collect::<Vec<String>>().join(" ");
            tracing::warn!(
                source = name,
                key = &*row.id,
                team = &*row.team,
                scopes,
                "a key or its team has scopes that `scopes:` does not define, which open nothing"
            );
        }
    }
}
