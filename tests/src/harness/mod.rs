//! Starts the real programs and talks to them as a client would.

pub mod client;
pub mod disk;
pub mod filtered;
pub mod http;
pub mod ipc;
pub mod ports;
pub mod process;
pub mod procfs;
pub mod server;
pub mod tool;
pub mod wait;
pub mod web;

pub use client::{Client, Event, Refused, RpcError};
pub use server::{Server, ServerBuilder};
pub use wait::{eventually, never};
pub use web::WebServer;
