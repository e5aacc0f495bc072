//! Both sides of a region, in one process.

use std::fs::File;
use std::os::fd::AsFd as _;
use std::time::Duration;

use parking_lot::Mutex;

use super::*;

const SIZE: usize = 1 << 20;

fn both() -> (Regions, Ends, Ends) {
    let regions = Regions::new(SIZE).unwrap();
    let (front, worker) = (regions.of_front().unwrap(), regions.of_worker().unwrap());
    (regions, front, worker)
}

#[test]
fn what_one_side_puts_the_other_reads_until_it_gives_it_back() {
    let (_regions, front, worker) = both();
    let released = Arc::new(Mutex::new(Vec::new()));
    let noted = released.clone();
    worker
        .into
        .on_release(Box::new(move |offset| noted.lock().push(offset)));
    let place = front.out.put(&[b"one ", b"", b"two"]).unwrap();
    let bytes = worker.into.bytes(place).unwrap();
    assert_eq!(bytes, "one two");
    let rest = bytes.slice(4..);
    drop(bytes);
    assert!(released.lock().is_empty());
    drop(rest);
    assert_eq!(*released.lock(), [place.offset]);
    assert!(front.out.used() > 0);
    assert!(front.out.give_back(place.offset));
    assert_eq!(front.out.used(), 0);
}

#[test]
fn what_is_not_in_use_cannot_be_given_back() {
    let (_regions, front, _worker) = both();
    let place = front.out.put(&[b"x"]).unwrap();
    for offset in [place.offset + 1, u64::MAX, SIZE as u64] {
        assert!(!front.out.give_back(offset), "{offset}");
    }
    assert!(front.out.give_back(place.offset));
    assert!(!front.out.give_back(place.offset));
}

#[test]
fn places_beyond_the_region_are_none() {
    let (_regions, front, _worker) = both();
    let size = SIZE as u64;
    for (offset, length) in [
        (size, 1),
        (0, size + 1),
        (1, size),
        (u64::MAX, 1),
        (1, u64::MAX),
        (size + 1, 0),
    ] {
        assert!(front.into.bytes(Place { offset, length }).is_none());
    }
    let whole = Place {
        offset: 0,
        length: size,
    };
    assert_eq!(front.into.bytes(whole).unwrap().len(), SIZE);
}

#[test]
fn a_region_has_room_for_what_it_is_long_and_no_more() {
    let (_regions, front, _worker) = both();
    assert_eq!(front.out.put(&[&vec![0; SIZE + 1]]), None);
    let place = front.out.put(&[&vec![1; SIZE]]).unwrap();
    assert_eq!(front.out.put(&[b"x"]), None);
    front.out.give_back(place.offset);
    assert!(front.out.put(&[b"x"]).is_some());
}

#[test]
fn nobody_takes_memory_away_that_another_one_reads() {
    let (regions, front, _worker) = both();
    for descriptor in regions.descriptors() {
        let file = File::from(descriptor.try_clone_to_owned().unwrap());
        assert!(file.set_len(0).is_err());
        assert!(file.set_len(2 * SIZE as u64).is_err());
    }
    let open = crate::handler::memory_file("open").unwrap();
    open.set_len(SIZE as u64).unwrap();
    assert!(Mapping::of(open.as_fd(), Access::Read).is_err());
    let place = Place {
        offset: 0,
        length: SIZE as u64,
    };
    assert!(
        front
            .into
            .bytes(place)
            .unwrap()
            .iter()
            .all(|byte| *byte == 0)
    );
}

#[test]
fn memory_that_is_not_in_use_goes_back_to_the_system() {
    let (regions, front, worker) = both();
    let resident = || regions.resident();
    assert_eq!(resident(), 0);
    let kept = front.out.put(&[b"kept"]).unwrap();
    let large = front.out.put(&[&vec![7; SIZE / 2]]).unwrap();
    let full = resident();
    assert!(front.out.give_back(large.offset));
    front.out.tidy(Duration::MAX);
    assert_eq!(resident(), full);
    front.out.tidy(Duration::ZERO);
    assert!(resident() < full / 2);
    assert_eq!(worker.into.bytes(kept).unwrap(), "kept");
}
