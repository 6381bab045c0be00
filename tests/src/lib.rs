//! Harness, peers and network emulator for the end-to-end tests.
