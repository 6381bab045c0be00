//! Our descriptions as text.

use super::local::LocalDescription;

impl LocalDescription {
    /// The description as text, CRLF at each line's end. It contains our SDES keys: never log it.
    pub fn write(&self) -> String {
        todo!()
    }
}
