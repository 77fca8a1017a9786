//! `crctl`: starts, freezes, thaws and ends containers, and tells about them.

mod cli;
mod commands;
mod exit;
mod output;

use clap::Parser;
use std::process::ExitCode;

fn main() -> ExitCode {
    // Workers are this program under another name.
    crfs::worker::exit_if_worker();
    crfs::console::exit_if_holder();
    let arguments = cli::Cli::parse();
    let json = arguments.json;
    match commands::run(arguments) {
        Ok(code) => ExitCode::from(code),
        Err(error) if error.is::<exit::Different>() => ExitCode::FAILURE,
        Err(error) => {
            let code = exit::code(&error);
            output::failure(&error, code, json);
            ExitCode::from(code)
        }
    }
}
