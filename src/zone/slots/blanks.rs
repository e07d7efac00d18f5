//! x
use super::super::peers::Zone;
/// x
pub(super) unsafe fn ready(_zone: &Zone) -> bool {
    true
}
