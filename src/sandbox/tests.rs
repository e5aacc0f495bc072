//! What becomes of walls by how much they are wanted.

use super::*;

#[test]
fn walls_have_names_that_are_found_again() {
    for wall in Wall::ALL {
        assert_eq!(Wall::named(wall.name()), Some(wall));
        assert!(!wall.meaning().is_empty() && !wall.remedy().is_empty());
    }
    assert_eq!(Wall::named("moat"), None);
}

#[test]
fn a_required_wall_that_is_missing_is_named_with_its_reason() {
    let demands: Demands = "prefer, landlock=require".parse().unwrap();
    let mut raised = Raised::new(&demands);
    raised.put_up(Wall::User, || Outcome::Missing("no".to_owned()));
    assert_eq!(raised.missing(), None);
    raised.put_up(Wall::Landlock, || {
        Outcome::Missing("not built in".to_owned())
    });
    assert_eq!(raised.missing(), Some(Wall::Landlock));
    let entered = Entered {
        missing: raised.missing(),
        outcomes: raised.outcomes,
        ..Entered::default()
    };
    assert_eq!(entered.missing(), Some((Wall::Landlock, "not built in")));
}

#[test]
fn what_is_off_is_not_tried() {
    let demands = Demands::all(Demand::Off);
    let mut raised = Raised::new(&demands);
    raised.put_up(Wall::Seccomp, || panic!("it was tried"));
    assert_eq!(raised.outcomes, [(Wall::Seccomp, Outcome::Off)]);
}
