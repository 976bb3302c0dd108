//! Tests that drive the compiled binary, one file a chapter of the promises; each is named by the sentence it proves.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test that cannot go on should say where it stopped"
)]

mod admin_token;
mod audit;
mod backup;
mod bad_input;
mod bounds;
mod brute_force;
mod cancel;
mod checks;
mod clock;
mod confinement;
mod console;
mod dashboard;
mod data_directory;
mod deploy;
mod detection;
mod disk;
mod encryption;
mod firewall;
mod front_door;
mod front_door_requests;
mod front_door_siege;
mod front_door_sockets;
mod harness;
mod hostile_repositories;
mod identity;
mod import;
mod install;
mod interrupted;
mod jobs;

mod harness_proof;
mod held_port;
mod history;
mod limits;
mod machine;
mod manual;
mod network;
mod notifications;
mod one_at_a_time;
mod openapi;
mod openapi_bounds;
mod output;
mod own_ports;
mod redaction;
mod rekey;
mod release_command;
mod repositories;
mod routing;
mod routing_certificates;
mod routing_names;
mod routing_switch;
mod routing_visitor;
mod running;
mod runs;
mod sample;
mod scripts;
mod settings;
mod shared_files;
mod sign_in;
mod slow_requests;
mod start_and_stop;
mod stopping;
mod supervision;
mod system_files;
mod tidy;
mod two_writers;
mod update;
mod upload;
mod webhooks;
mod workers;
mod zero_downtime;
