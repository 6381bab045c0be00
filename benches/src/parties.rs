//! Sessions with their parties and traffic, set up and ended together.

use std::net::SocketAddr;

use crate::calls::{Call, Counted};
use crate::legs::Leg;
use crate::load::Generator;

/// Sessions, and the generator that has their legs.
pub struct Parties {
    calls: Vec<Call>,
    /// Sends and receives for them.
    pub generator: Generator,
}

impl Parties {
    /// Makes sessions of so many legs each.
    pub fn set_up(server: SocketAddr, mut legs: Vec<Leg>, each: usize) -> Result<Self, String> {
        let mut calls: Vec<Call> = Vec::new();
        for parties in legs.chunks_mut(each) {
            calls.push(Call::set_up(server, parties)?.0);
        }
        let generator = Generator::new(legs).map_err(|error| error.to_string())?;
        Ok(Self { calls, generator })
    }

    /// Answers the server's pings and keeps consent, between stretches.
    pub fn keep_alive(&mut self) -> Result<(), String> {
        self.calls.iter_mut().for_each(Call::keep_alive);
        self.generator.legs().iter().try_for_each(Leg::keep_alive)
    }

    /// What the server has counted of all of them.
    pub fn counted(&mut self) -> Result<Counted, String> {
        let mut total = Counted::default();
        for call in &mut self.calls {
            total += call.counted()?;
        }
        Ok(total)
    }

    /// Ends all sessions in good order.
    pub fn end(self) -> Result<(), String> {
        self.calls.into_iter().try_for_each(Call::end)
    }
}
