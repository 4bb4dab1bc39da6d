//! Scopes: coarse permissions, named by the platform, held as bits.

/// The scopes that the platform defines, in the order of the configuration.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Scopes(Vec<Box<str>>);

/// Some of a platform's scopes: bit *n* stands for the *n*-th name of [`Scopes`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Hash)]
pub struct ScopeSet(u128);

impl Scopes {
    /// As many as a [`ScopeSet`] has bits. TelAPI has three.
    pub const MOST: usize = 128;

    /// The names, at most [`Scopes::MOST`] of them; the caller has checked that no name stands twice.
    #[must_use]
    pub fn new(names: Vec<Box<str>>) -> Self {
        debug_assert!(names.len() <= Self::MOST, "config counts the scopes");
        Self(names)
    }

    /// The set of this one scope; nothing where the platform does not define it.
    #[must_use]
    pub fn find(&self, name: &str) -> Option<ScopeSet> {
        self.0.iter().position(|known| **known == *name).map(|bit| ScopeSet(1 << bit))
    }

    /// The set of all these names that the platform defines. Unknown names open nothing.
    pub fn set<'a>(&self, names: impl IntoIterator<Item = &'a str>) -> ScopeSet {
        names.into_iter().filter_map(|name| self.find(name)).fold(ScopeSet::default(), ScopeSet::with)
    }

    /// The names of a set, in the platform's order.
    pub fn names(&self, set: ScopeSet) -> impl Iterator<Item = &str> {
        self.0.iter().enumerate().filter(move |(bit, _)| set.0 >> bit & 1 == 1).map(|(_, name)| &**name)
    }

    /// All names, in the platform's order.
    pub fn all(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|name| &**name)
    }
}

impl ScopeSet {
    /// Both sets together.
    #[must_use]
    pub fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// What both sets hold.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// What this set holds and the other does not.
    #[must_use]
    pub fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// True where nothing is in it.
    #[must_use]
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }
}
