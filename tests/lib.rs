//! Tests that promise something to a user (`e2e`) or hold the workspace to its own rules (`tidy`).
