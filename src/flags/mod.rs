//! Which surfaces are on: a flag of the platform turns a whole part of the service off.

use crate::config::Flag;

/// The flags of a configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Flags(Vec<Flag>);

impl Flags {
    /// As the configuration says.
    #[must_use]
    pub fn new(flags: &[Flag]) -> Self {
        Self(flags.to_vec())
    }

    /// The first of these flags (places in the configuration's list) that is off.
    #[must_use]
    pub fn first_off(&self, flags: &[usize]) -> Option<&str> {
        let mut flags = flags.iter().filter_map(|place| self.0.get(*place));
        flags.find(|flag| !flag.on).map(|flag| &*flag.name)
    }
}
