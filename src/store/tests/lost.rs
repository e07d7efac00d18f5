//! What a reload says of changes that it drops.

use super::*;

use crate::store::lost::TOLD;

#[test]
fn a_reload_says_who_comes_back_who_goes_and_what_a_new_address_lost() {
    let (store, _) = store();
    let mut locked = store.lock();
    let claims = [claim("a", "1"), claim("b", "2"), claim("n", "3"), claim("d", "4")];
    let (record, _) = adopt(&mut locked, &claims);
    add(&mut locked, record, claim("c", "9")).unwrap();
    add(&mut locked, record, claim("e", "8")).unwrap();
    let gone = locked.server(record, 1).unwrap();
    commit(&mut locked, record, &mut [], &[gone], &mut []).unwrap();
    down(&mut locked, record, 2).unwrap();
    down(&mut locked, record, 3).unwrap();
    // The name has another address by now, the file has one of the added servers, and one less of its own.
    let claims = [claim("a", "1"), claim("b", "2"), claim("n", "7"), claim("e", "8")];
    let (_, lost) = adopt(&mut locked, &claims);
    let lines = ["b\": .*: it was removed", "n\": .*: state down -> up", "c\": .*: it was added"];
    let lines = lines.map(|line| line.replace(".*", "the reload dropped run-time changes"));
    let mut wanted = lines.map(|line| format!("upstream \"u\" server \"{line}"));
    wanted.sort();
    let mut lost = lost;
    lost.sort();
    assert_eq!(lost, wanted);
}

#[test]
fn of_many_servers_that_lost_something_the_first_are_told() {
    let (store, _) = store();
    let mut locked = store.lock();
    let names: Vec<_> = (0..TOLD + 3).map(|n| n.to_string()).collect();
    let claims: Vec<_> = names.iter().map(|name| claim(name, name)).collect();
    let (record, _) = adopt(&mut locked, &claims);
    for id in 0..claims.len() {
        down(&mut locked, record, id as u64).unwrap();
    }
    let mut claimed = Claimed::with_room(claims.len());
    locked.claim(record, 1, 0, &claims, &mut claimed, Wishes::Dropped).unwrap();
    assert_eq!((claimed.losses().told().count(), claimed.losses().count()), (TOLD, TOLD + 3));
}
