//! Webhooks: a Git host's push becomes a deploy, and nobody else's request does.

use crate::harness::apps::{PLAIN, create, ended, show};
use crate::harness::sealed::Database;
use crate::harness::webhook::{GITHUB, Headers, NOWHERE, an_app, an_id, deliver, github, hmac};
use crate::harness::{Answer, GitServer, Http, Server, Setup, a_token, hex, random};
use data_encoding::BASE64;
use serde_json::{Value, json};
use std::time::{SystemTime, UNIX_EPOCH};

const PING: &str = include_str!("fixtures/hooks/github_ping.json");
const GITEA: &str = include_str!("fixtures/hooks/gitea.json");
const GITLAB: &str = include_str!("fixtures/hooks/gitlab.json");

/// How each host sends a push: its name, its payload, and the headers with its proof.
fn hosts(secret: &str, id: &str) -> Vec<(&'static str, &'static str, Headers)> {
    let sign = |body: &str| hex(&hmac(secret.as_bytes(), body.as_bytes()));
    let own = |name, value: &str| (name, value.to_owned());
    let like_github = |body: &str| {
        vec![
            own("X-GitHub-Delivery", id),
            own("X-GitHub-Event", "push"),
            // The older one, of SHA-1, proves nothing.
            own("X-Hub-Signature", "sha1=0000000000000000000000000000000000000000"),
            ("X-Hub-Signature-256", format!("sha256={}", sign(body))),
        ]
    };
    let mut gitea = like_github(GITEA);
    gitea.extend([
        own("X-Gitea-Delivery", id),
        own("X-Gitea-Event", "push"),
        ("X-Gitea-Signature", sign(GITEA)),
    ]);
    gitea.extend([own("X-Gitea-Event-Type", "push"), ("X-Gogs-Signature", sign(GITEA))]);
    let mut forgejo = gitea.clone();
    forgejo.extend([
        own("X-Forgejo-Delivery", id),
        own("X-Forgejo-Event", "push"),
        ("X-Forgejo-Signature", sign(GITEA)),
    ]);
    let gitlab = vec![
        own("X-Gitlab-Event", "Push Hook"),
        own("X-Gitlab-Event-UUID", &an_id()),
        own("X-Gitlab-Webhook-UUID", &an_id()),
        own("Idempotency-Key", id),
    ];
    let mut by_token = gitlab.clone();
    by_token.push(own("X-Gitlab-Token", secret));
    let mut signed = gitlab;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("a time").as_secs().to_string();
    let key = secret.strip_prefix("whsec_").and_then(|s| BASE64.decode(s.as_bytes()).ok());
    let signature = hmac(&key.unwrap_or_default(), format!("{id}.{now}.{GITLAB}").as_bytes());
    signed.extend([
        own("webhook-id", id),
        ("webhook-timestamp", now),
        ("webhook-signature", format!("v1,{}", BASE64.encode(&signature))),
    ]);
    vec![
        ("GitHub", GITHUB, like_github(GITHUB)),
        ("Gitea", GITEA, gitea),
        ("Forgejo", GITEA, forgejo),
        ("GitLab, secret token", GITLAB, by_token),
        ("GitLab, signing token", GITLAB, signed),
    ]
}

/// A host at an address of its own, so that what it does wrong is nobody else's.
fn host(server: &Server, number: u8) -> Http {
    server.stranger().coming_from([127, 0, 1, number])
}

fn deploys(owner: &mut Http, app: &str) -> Vec<Value> {
    let list = owner.get(&format!("/api/apps/{app}/deploys")).expect(200).json();
    list["deploys"].as_array().expect("a list").clone()
}

#[test]
fn a_push_at_any_host_is_deployed_once_and_a_wrong_proof_never() {
    let server = Setup::new().as_user().start();
    let mut owner = server.owner();
    for (number, name) in hosts("whsec_", "").iter().map(|h| h.0).enumerate() {
        let number = u8::try_from(number).expect("few");
        let (app, secret) = an_app(&mut owner, &format!("app-{number}"), &json!({}));
        let id = an_id();
        let (_, body, headers) = hosts(&secret, &id).swap_remove(number.into());
        let from = || host(&server, number);

        let taken = deliver(from(), &app, &headers, body).expect(202).json();
        assert_eq!(taken["result"], "queued", "{name}: {taken}");
        let made = deploys(&mut owner, &app);
        assert_eq!(
            (made.len(), &made[0]["trigger"], &made[0]["id"]),
            (1, &json!("webhook"), &taken["deployId"]),
            "{name}"
        );
        let again = deliver(from(), &app, &headers, body).expect(200).json();
        assert_eq!(again["result"], "replayed", "{name}: {again}");
        // The name in a header is not signed everywhere: another one makes no new delivery.
        let unsigned = |n: &str| n.ends_with("UUID") || n == "Idempotency-Key";
        let changed = |n: &str| n.ends_with("Delivery") || (number == 4 && unsigned(n));
        let mut renamed: Headers = headers
            .iter()
            .map(|(n, v)| (*n, if changed(n) { an_id() } else { v.clone() }))
            .collect();
        if name.starts_with("GitLab") {
            renamed.extend(["X-GitHub-Delivery", "X-Forgejo-Delivery"].map(|n| (n, an_id())));
        }
        let again = deliver(from(), &app, &renamed, body).expect(200).json();
        assert_eq!(again["result"], "replayed", "{name}: {again}");

        let (_, other) = an_app(&mut owner, &format!("other-{number}"), &json!({}));
        let (_, _, foreign) = hosts(&other, &an_id()).swap_remove(number.into());
        deliver(from(), &app, &foreign, body).expect(401);
        let (_, _, fresh) = hosts(&secret, &an_id()).swap_remove(number.into());
        if !name.ends_with("secret token") {
            let changed = body.replace("refs/heads/main", "refs/heads/main ");
            deliver(from(), &app, &fresh, &changed).expect(401);
        }
        let without = |word: &str| -> Headers {
            fresh.iter().filter(|(n, _)| !n.contains(word)).cloned().collect()
        };
        let unproved: Headers =
            without("ignature").into_iter().filter(|(n, _)| *n != "X-Gitlab-Token").collect();
        deliver(from(), &app, &unproved, body).expect(401);
        // One that shows the same thing twice costs no second look at the body.
        let proofs = ["X-Hub-Signature-256", "X-Gitlab-Token", "webhook-signature"];
        let proof = fresh.iter().find(|(n, _)| proofs.contains(n)).expect("a proof");
        let mut twice = fresh.clone();
        twice.push(proof.clone());
        deliver(from(), &app, &twice, body).expect(401);
        assert_eq!(deploys(&mut owner, &app).len(), 1, "{name}");
    }
}

#[test]
fn a_push_to_the_repository_goes_live() {
    let git = GitServer::start();
    let commit = git.commit("shop", &PLAIN);
    let server = Setup::new().as_user().start();
    let mut owner = server.owner();
    let (app, secret) =
        an_app(&mut owner, "shop", &json!({"gitRepo": git.url("shop"), "branch": ""}));
    let taken = deliver(host(&server, 1), &app, &github(&secret, "push", GITHUB), GITHUB)
        .expect(202)
        .json();
    let result = ended(&mut owner, taken["deployId"].as_str().expect("an id"));
    assert_eq!(
        (&result["status"], &result["trigger"]),
        (&json!("live"), &json!("webhook")),
        "{result:#}"
    );
    assert_eq!(result["commit"], commit.as_str());
    assert_eq!(show(&mut owner, &app)["status"], "running");

    // What its owner has stopped, no push starts.
    let next =
        GITHUB.replace("9c1e6d2b4a8f7e5d3c2b1a0f9e8d7c6b5a4f3e2d", &git.commit("shop", &PLAIN));
    let push = || deliver(host(&server, 1), &app, &github(&secret, "push", &next), &next);
    owner.post(&format!("/api/apps/{app}/stop"), &json!({})).expect(202);
    let ignored = push().expect(200).json();
    assert!(ignored["message"].as_str().is_some_and(|m| m.contains("is stopped")), "{ignored}");
    owner.post(&format!("/api/apps/{app}/start"), &json!({})).expect(202);
    let taken = push().expect(202).json();
    let result = ended(&mut owner, taken["deployId"].as_str().expect("an id"));
    assert_eq!(result["status"], "live", "{result:#}");
}

#[test]
fn p8_a_delivery_that_proves_nothing_tells_of_no_app_and_keeps_nobody_out() {
    let server = Setup::new().as_user().start();
    let mut owner = server.owner();
    let (app, secret) = an_app(&mut owner, "shop", &json!({}));
    let (bare, removed) = an_app(&mut owner, "bare", &json!({}));
    owner.delete(&format!("/api/apps/{bare}/webhook")).expect(204);
    let good = || github(&secret, "push", GITHUB);
    let wrong = |secret: &str| github(secret, "push", GITHUB);

    let plain = |answer: &Answer| {
        let mut headers = answer.headers.clone();
        headers.retain(|(name, _)| !name.eq_ignore_ascii_case("date"));
        (answer.status, headers, answer.text())
    };
    let known = plain(&deliver(host(&server, 1), &app, &wrong("x"), GITHUB).expect(401));
    assert!(known.1.iter().any(|(n, _)| n.eq_ignore_ascii_case("www-authenticate")), "{known:?}");
    for (what, id, headers) in [
        ("no proof", app.as_str(), Headers::new()),
        ("an app whose secret was removed", &bare, wrong(&removed)),
        ("no such app", "aaaaaaaaaa", wrong("")),
        ("nothing that could be an app", "..%2fapps", wrong(&secret)),
    ] {
        assert_eq!(plain(&deliver(host(&server, 1), id, &headers, GITHUB)), known, "{what}");
    }
    // Strangers at the same address keep out neither the Git host nor the owner.
    for _ in 0..20 {
        deliver(host(&server, 1), &app, &wrong("x"), GITHUB).expect(401);
    }
    deliver(host(&server, 1), &app, &good(), GITHUB).expect(202);
    owner_at(&server, 1).get("/api/session").expect(200);
    assert_eq!(owner.get("/api/security/lockouts").json(), json!({"lockouts": []}));
    server.wait_for_log("a webhook without the app's signature from 127.0.1.1");
    let lines = server.log().matches("a webhook without the app's signature").count();
    assert!(lines <= 10, "{lines} lines");

    // Nor do they forgive, or are kept out by, what was wrong with the token.
    let mut guesser = host(&server, 2).bearer("wrong");
    for _ in 0..4 {
        guesser.get("/api/session").expect(401);
    }
    deliver(host(&server, 2), &app, &wrong("x"), GITHUB).expect(401);
    let again = || deliver(host(&server, 2), &app, &good(), GITHUB).expect(200).json();
    assert_eq!(again()["result"], "replayed");
    guesser.get("/api/session").expect(401);
    owner_at(&server, 2).get("/api/session").expect(429);
    assert_eq!(again()["result"], "replayed");
    // The token is no proof, and neither is the secret a token.
    let mut by_token = server.owner().coming_from([127, 0, 1, 3]).with("X-GitHub-Event", "push");
    by_token.request("POST", &format!("/api/hooks/{app}"), Some(GITHUB.as_bytes())).expect(401);
    host(&server, 4).bearer(&secret).get("/api/apps").expect(401);
}

fn owner_at(server: &Server, number: u8) -> Http {
    server.owner().coming_from([127, 0, 1, number])
}

#[test]
fn what_is_no_push_to_the_apps_branch_is_acknowledged_and_nothing_else() {
    let server = Setup::new().as_user().start();
    let mut owner = server.owner();
    let (app, secret) = an_app(&mut owner, "shop", &json!({}));
    let send =
        |event, body: &str| deliver(host(&server, 1), &app, &github(&secret, event, body), body);
    let ignored = |event, body: &str, why: &str| {
        let answer = send(event, body).expect(200).json();
        assert_eq!(answer["result"], "ignored", "{answer}");
        assert!(answer["message"].as_str().expect("a sentence").contains(why), "{answer}");
    };
    assert_eq!(send("ping", PING).expect(200).json()["result"], "pong");
    let to = |reference: &str| GITHUB.replace("refs/heads/main", reference);
    ignored("push", &to("refs/heads/mainline"), "deployed from main");
    ignored("push", &to("refs/heads/feature/main"), "deployed from main");
    ignored("push", &to("refs/tags/main"), "not a push to a branch");
    ignored("push", &to("main"), "not a push to a branch");
    ignored("push", &GITHUB.replace("\"deleted\": false", "\"deleted\": true"), "was removed");
    let zeros = GITHUB.replace(
        "\"9c1e6d2b4a8f7e5d3c2b1a0f9e8d7c6b5a4f3e2d\",\n  \"rep",
        "\"0000000000000000000000000000000000000000\",\n  \"rep",
    );
    assert_ne!(zeros, GITHUB);
    ignored("push", &zeros, "was removed");
    ignored("issues", "{}", "kind issues");

    let set = |owner: &mut Http, fields: Value| {
        owner.patch(&format!("/api/apps/{app}"), &fields).expect(200)
    };
    set(&mut owner, json!({"autoDeploy": false}));
    ignored("push", GITHUB, "auto-deploy is off");
    set(&mut owner, json!({"autoDeploy": true, "branch": ""}));
    ignored("push", &to("refs/heads/other"), "deployed from main");
    let unknown = GITHUB.replace("default_branch", "other_branch");
    assert!(send("push", &unknown).expect(400).message().contains("names no default branch"));
    assert_eq!(deploys(&mut owner, &app), Vec::<Value>::new());
    // The default branch is the payload's, GitLab's from another place; nothing else of it
    // is: it speaks of other repositories than the app's.
    send("push", GITHUB).expect(202);
    let (_, body, headers) = hosts(&secret, &an_id()).swap_remove(4);
    let taken = deliver(host(&server, 1), &app, &headers, body).expect(202).json();
    let result = ended(&mut owner, taken["deployId"].as_str().expect("an id"));
    let error = result["error"].as_str().expect("a sentence");
    assert!(error.contains("http://127.0.0.1:1 could not be reached"), "{error}");
}

#[test]
fn what_is_no_delivery_at_all_is_refused_with_a_sentence() {
    let server = Setup::new().as_user().start();
    let mut owner = server.owner();
    let (app, secret) = an_app(&mut owner, "shop", &json!({}));
    let send =
        |event, body: &str| deliver(host(&server, 1), &app, &github(&secret, event, body), body);
    for (what, event, body) in [
        ("no JSON", "push", "ref=refs/heads/main"),
        ("no object", "push", "[]"),
        ("no ref", "push", "{\"after\":\"1\"}"),
        ("a ref that is none", "push", "{\"ref\":{\"a\":1}}"),
        ("two refs", "push", "{\"ref\":\"refs/heads/main\",\"ref\":\"refs/heads/x\"}"),
        (
            "too deep",
            "push",
            &format!("{{\"ref\":\"refs/heads/main\",\"x\":{}", "[".repeat(100_000)),
        ),
    ] {
        assert_eq!(send(event, body).expect(400).code(), "invalid_body", "{what}");
    }
    let mut nameless = github(&secret, "push", GITHUB);
    nameless.remove(0);
    assert!(
        deliver(host(&server, 1), &app, &nameless, GITHUB)
            .expect(400)
            .message()
            .contains("names no event")
    );
    let form = "payload=%7B%22ref%22%3A%22refs%2Fheads%2Fmain%22%7D";
    let mut as_form = github(&secret, "push", form);
    as_form.insert(0, ("Content-Type", "application/x-www-form-urlencoded".to_owned()));
    let answer = deliver(host(&server, 1), &app, &as_form, form).expect(415);
    assert!(answer.message().contains("content type to application/json"), "{}", answer.text());
    let large = format!("{}{}", GITHUB, " ".repeat(1 << 20));
    send("push", &large).expect(413);
    assert_eq!(deploys(&mut owner, &app), Vec::<Value>::new());
}

#[test]
fn a_webhook_secret_is_shown_once_renewed_and_removed() {
    let server = Setup::new().as_user().token(&a_token()).start();
    let mut owner = server.owner();
    let app = create(&mut owner, &json!({"name": "shop", "gitRepo": NOWHERE, "branch": "main"}));
    let path = format!("/api/apps/{app}/webhook");
    assert_eq!(show(&mut owner, &app)["hasWebhookSecret"], false);
    let first = owner.request("POST", &path, None).expect(200).json()["secret"].clone();
    let first = first.as_str().expect("a secret");
    let coded = first.strip_prefix("whsec_").expect("the form of Standard Webhooks");
    assert_eq!(BASE64.decode(coded.as_bytes()).expect("base64").len(), 32, "256 bits");

    assert_eq!(show(&mut owner, &app)["hasWebhookSecret"], true);
    assert!(!owner.get("/api/apps").text().contains(coded));
    let envelope = Database::beside(&server).text("SELECT webhook_secret FROM apps");
    assert!(envelope.starts_with("enc:v2:"), "{envelope}");
    let server = server.restart();
    let mut owner = server.owner();
    let send = |secret: &str| {
        let number = random::<1>()[0].clamp(1, 254);
        deliver(host(&server, number), &app, &github(secret, "ping", PING), PING).status
    };
    assert_eq!(send(first), 200);

    let second = owner.request("POST", &path, None).expect(200).json()["secret"].clone();
    let second = second.as_str().expect("a secret");
    assert_ne!(first, second);
    assert_eq!((send(first), send(second)), (401, 200));
    owner.delete(&path).expect(204);
    owner.delete(&path).expect(204);
    assert_eq!(send(second), 401);
    assert_eq!(show(&mut owner, &app)["hasWebhookSecret"], false);
    for method in ["POST", "DELETE"] {
        owner.request(method, "/api/apps/aaaaaaaaaa/webhook", None).expect(404);
        server.stranger().request(method, &path, None).expect(401);
    }
    assert!(!server.log().contains(coded) && !server.log().contains(&second[6..]));
    // An envelope from elsewhere verifies nothing.
    let third = owner.request("POST", &path, None).expect(200).json()["secret"].clone();
    let database = Database::beside(&server);
    database.run(&format!("UPDATE apps SET webhook_secret = '{envelope}x'"));
    assert_eq!(send(third.as_str().expect("a secret")), 401);
    server.wait_for_log("a webhook was refused");
}
