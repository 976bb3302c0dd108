//! Feeds hostile text to the reader of client addresses: what it accepts, it writes
//! in a form that it reads as the same client.
#![no_main]

use better_paas::model::Client;

libfuzzer_sys::fuzz_target!(|text: &str| {
    if let Ok(client) = Client::parse(text) {
        assert_eq!(Client::parse(&client.to_string()), Ok(client));
    }
});
