//! How programs inside reach the network the way the machine does: its proxies
//! and its certificate authorities.

use std::path::Path;

/// The server's own variables that builds and apps get too, also those in small letters.
const PROXIES: [&str; 4] = ["HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "ALL_PROXY"];

/// Where systems keep their certificate authorities; the first that is there counts.
const BUNDLES: [&str; 3] =
    ["/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/cert.pem"];

/// The variables that name the bundle to OpenSSL, Node.js, Python's requests,
/// pip, curl, Git and Cargo: several of them bring a list of their own otherwise,
/// which does not know an authority that the owner has added to the machine.
const BUNDLE_VARIABLES: &str = "\
    SSL_CERT_FILE NODE_EXTRA_CA_CERTS REQUESTS_CA_BUNDLE PIP_CERT CURL_CA_BUNDLE GIT_SSL_CAINFO \
    CARGO_HTTP_CAINFO";

/// The variables, with their values.
pub fn variables() -> Vec<(String, String)> {
    let names = PROXIES.into_iter().flat_map(|name| [name.to_owned(), name.to_ascii_lowercase()]);
    let proxies = names.filter_map(|name| std::env::var(&name).ok().map(|value| (name, value)));
    let mut all: Vec<_> = proxies.filter(|(_, value)| !value.is_empty()).collect();
    if let Some(bundle) = BUNDLES.iter().find(|path| Path::new(path).is_file()) {
        let names = BUNDLE_VARIABLES.split(' ');
        all.extend(names.map(|name| (name.to_owned(), (*bundle).to_owned())));
    }
    all
}
