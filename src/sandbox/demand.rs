//! Which walls are wanted: a word for all of them, and words for single ones.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::Wall;

/// How much a wall is wanted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Demand {
    /// A process without it is not started.
    Require,
    /// It is put up where that is possible.
    #[default]
    Prefer,
    /// It is not.
    Off,
}

impl Demand {
    const ALL: [Self; 3] = [Self::Require, Self::Prefer, Self::Off];

    /// The word for it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Require => "require",
            Self::Prefer => "prefer",
            Self::Off => "off",
        }
    }

    fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|demand| demand.name() == name)
    }
}

/// How much each wall is wanted. Written as `require`, or as `prefer, landlock=require, user=off`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Demands {
    all: Demand,
    single: BTreeMap<Wall, Demand>,
}

/// A text that is no demand.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "must be {}, and may go on with , WALL={} for {}",
    words(" or "),
    words("|"),
    walls()
)]
pub struct InvalidDemand;

impl Demands {
    /// The same for all walls.
    pub const fn all(all: Demand) -> Self {
        Self {
            all,
            single: BTreeMap::new(),
        }
    }

    /// How much `wall` is wanted. A group of the kernel's is given to few servers, so that it has to be asked for by name.
    pub fn of(&self, wall: Wall) -> Demand {
        let of_all = match (wall, self.all) {
            (Wall::Cgroup, Demand::Require) => Demand::Prefer,
            (_, all) => all,
        };
        self.single.get(&wall).copied().unwrap_or(of_all)
    }

    /// Whether no wall is wanted.
    pub fn is_off(&self) -> bool {
        Wall::ALL.iter().all(|wall| self.of(*wall) == Demand::Off)
    }
}

impl FromStr for Demands {
    type Err = InvalidDemand;

    fn from_str(text: &str) -> Result<Self, InvalidDemand> {
        let mut demands = Self::default();
        for (index, word) in text.split(',').map(str::trim).enumerate() {
            match word.split_once('=') {
                Some((wall, demand)) => {
                    let wall = Wall::named(wall.trim()).ok_or(InvalidDemand)?;
                    let demand = Demand::named(demand.trim()).ok_or(InvalidDemand)?;
                    demands.single.insert(wall, demand);
                }
                None if index == 0 => demands.all = Demand::named(word).ok_or(InvalidDemand)?,
                None => return Err(InvalidDemand),
            }
        }
        Ok(demands)
    }
}

impl fmt::Display for Demands {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.all.name())?;
        let mut single = self.single.iter();
        single.try_for_each(|(wall, demand)| write!(formatter, ", {wall}={}", demand.name()))
    }
}

fn words(between: &str) -> String {
    Demand::ALL.map(Demand::name).join(between)
}

fn walls() -> String {
    Wall::ALL.map(Wall::name).join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_holds_for_all_walls_but_those_that_have_their_own() {
        let demands: Demands = "require, user=off,landlock = prefer".parse().unwrap();
        assert_eq!(demands.of(Wall::Seccomp), Demand::Require);
        assert_eq!(demands.of(Wall::User), Demand::Off);
        assert_eq!(demands.of(Wall::Landlock), Demand::Prefer);
        assert_eq!(demands.to_string(), "require, user=off, landlock=prefer");
        assert_eq!(demands.to_string().parse(), Ok(demands));
        let single: Demands = "landlock=require".parse().unwrap();
        assert_eq!(single.of(Wall::Landlock), Demand::Require);
        assert_eq!(single.of(Wall::User), Demand::Prefer);
    }

    #[test]
    fn a_cgroup_is_required_by_name_alone() {
        let all: Demands = "require".parse().unwrap();
        assert_eq!(all.of(Wall::Cgroup), Demand::Prefer);
        let named: Demands = "prefer, cgroup=require".parse().unwrap();
        assert_eq!(named.of(Wall::Cgroup), Demand::Require);
    }

    #[test]
    fn off_is_off_for_all() {
        assert!(Demands::all(Demand::Off).is_off());
        assert!(!"off, seccomp=prefer".parse::<Demands>().unwrap().is_off());
    }

    #[test]
    fn anything_else_is_refused() {
        for text in [
            "",
            "on",
            "true",
            "Require",
            "require off",
            "require, off",
            "wall=off",
            "user=no",
            "user=",
            "prefer,",
        ] {
            assert_eq!(text.parse::<Demands>(), Err(InvalidDemand), "{text:?}");
        }
    }
}
