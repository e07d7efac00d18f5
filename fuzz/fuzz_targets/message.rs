//! What every message to a user must be.

/// Panics unless a message can be shown anywhere: one line without control characters, of bounded length.
pub fn check_message(error: &dyn std::error::Error) {
    let message = error.to_string();
    assert!(!message.is_empty());
    assert!(!message.chars().any(char::is_control));
    assert!(message.chars().count() < 200);
}
