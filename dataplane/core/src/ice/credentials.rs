//! Our ufrags and passwords. A restart adds a generation; the older ones keep answering checks, so
//! that media flows on and may move, until the newest is nominated.

use base64::Engine;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use zeroize::Zeroizing;

use crate::sdp::IceCredentials;

/// The nominated generation and this many restarts less one that nobody answered yet.
const MAX_GENERATIONS: usize = 4;

const UFRAG_BYTES: usize = 6;
const PASSWORD_BYTES: usize = 24;

/// Bytes of randomness that [`random_credentials`] needs.
pub const CREDENTIAL_ENTROPY: usize = UFRAG_BYTES + PASSWORD_BYTES;

/// Credentials made of `random`, which must come from the operating system's random source: 48 bits
/// of ufrag and 192 of password (RFC 8445 section 5.3 wants 24 and 128). The base64 alphabet is
/// exactly that of `ice-char`.
pub fn random_credentials(random: &[u8; CREDENTIAL_ENTROPY]) -> IceCredentials {
    let (ufrag, password) = random.split_at(UFRAG_BYTES);
    let ufrag = STANDARD_NO_PAD.encode(ufrag);
    let password = Zeroizing::new(STANDARD_NO_PAD.encode(password));
    IceCredentials::new(&ufrag, &password).expect("8 and 32 ice-chars are within the bounds")
}

/// Whose credentials a check used.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Generation {
    Older,
    Newest,
}

/// Every generation that still answers, oldest first. Never empty.
pub(super) struct Generations {
    older: Vec<IceCredentials>,
    newest: IceCredentials,
}

impl Generations {
    pub(super) fn new(first: IceCredentials) -> Self {
        Self {
            older: Vec::new(),
            newest: first,
        }
    }

    pub(super) const fn newest(&self) -> &IceCredentials {
        &self.newest
    }

    /// Adds a generation. Of too many unanswered ones the first goes, never the nominated one.
    pub(super) fn add(&mut self, credentials: IceCredentials) {
        let previous = std::mem::replace(&mut self.newest, credentials);
        self.older.push(previous);
        if self.older.len() >= MAX_GENERATIONS {
            self.older.remove(1);
        }
    }

    /// The generation that a `USERNAME` of the form `ours:theirs` means. What the peer calls itself
    /// is not looked at: its restart may overtake the description that tells of it.
    pub(super) fn find(&self, username: &[u8]) -> Option<(Generation, &IceCredentials)> {
        let colon = username.iter().position(|byte| *byte == b':')?;
        let ours = username.get(..colon)?;
        if ours == self.newest.ufrag().as_bytes() {
            return Some((Generation::Newest, &self.newest));
        }
        self.older
            .iter()
            .find(|credentials| credentials.ufrag().as_bytes() == ours)
            .map(|credentials| (Generation::Older, credentials))
    }

    /// The newest was nominated: the others answer no more.
    pub(super) fn on_nominated(&mut self) {
        self.older.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbered(number: u8) -> IceCredentials {
        random_credentials(&[number; CREDENTIAL_ENTROPY])
    }

    fn found(generations: &Generations, number: u8) -> Option<Generation> {
        let username = format!("{}:peer", numbered(number).ufrag());
        generations
            .find(username.as_bytes())
            .map(|(generation, _)| generation)
    }

    #[test]
    fn credentials_are_long_enough_for_the_rfc_and_differ() {
        let one = random_credentials(&rand::random());
        let two = random_credentials(&rand::random());
        assert_eq!((one.ufrag().len(), one.password().len()), (8, 32));
        assert_ne!(one.ufrag(), two.ufrag());
        assert_ne!(one.password(), two.password());
    }

    #[test]
    fn the_nominated_generation_outlives_unanswered_restarts() {
        let mut generations = Generations::new(numbered(0));
        for number in 1..=9 {
            generations.add(numbered(number));
        }
        assert_eq!(found(&generations, 0), Some(Generation::Older));
        assert_eq!(found(&generations, 6), None);
        assert_eq!(found(&generations, 8), Some(Generation::Older));
        assert_eq!(found(&generations, 9), Some(Generation::Newest));
        generations.on_nominated();
        assert_eq!(found(&generations, 0), None);
        assert_eq!(found(&generations, 9), Some(Generation::Newest));
    }

    #[test]
    fn a_username_without_both_halves_is_nobodys() {
        let generations = Generations::new(numbered(0));
        let ufrag = numbered(0).ufrag().to_owned();
        assert!(generations.find(ufrag.as_bytes()).is_none());
        assert!(generations.find(b"").is_none());
        assert!(
            generations
                .find(format!("peer:{ufrag}").as_bytes())
                .is_none()
        );
        assert!(generations.find(format!("{ufrag}:").as_bytes()).is_some());
    }
}
