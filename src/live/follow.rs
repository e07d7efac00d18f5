//! What a request does about changes that the peers do not show yet.

use std::time::Duration;

use crate::store::SOON;

use super::catch_up::{catch_up, tell_new_peers};
use super::room;
use super::upstream::Control;
use super::view::adopt_new_peers;

impl Control {
    /// On the way of a request, before a peer is chosen: lets the peers show what others changed, unless the store's lock
    /// is not to be had soon.
    #[inline]
    pub fn keep_up(&self) {
        if self.pulse().differs() {
            catch_up(self, SOON);
        }
        let membership = self.zone.membership();
        // Once for each count: it is in vain where the store has no room.
        if self.has_new_peers(membership) && self.followed.replace(membership) != membership {
            follow(self, SOON);
        }
    }
}

/// Does what a request found undone: shows what others changed, and takes up peers that nginx made. Without the store's
/// lock within `limit` it stays undone.
pub fn follow(control: &Control, limit: Duration) {
    // Without memory the next request tries again.
    let Ok(_room) = room::to_look(&control.zone) else { return };
    catch_up(control, limit);
    if !control.has_new_peers(control.zone.membership()) {
        return;
    }
    if control.is_old.get() {
        tell_new_peers(control, limit);
    } else if let Some(copy) = control.zone.copy() {
        adopt_new_peers(control, &copy, limit);
    }
}
