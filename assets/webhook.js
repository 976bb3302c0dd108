// Deploy on push: the switch, the webhook's secret, and what to paste where.

import { atHome, copyText, onClick, part, patch, post, remove, say } from "./core.js";

export function bindWebhook(root, page) {
  const place = part(root, "webhook-error"), auto = part(root, "auto");
  const path = `${page.path}/webhook`;

  function show() {
    const { hasWebhookSecret: there, autoDeploy } = page.app;
    auto.checked = autoDeploy;
    part(root, "webhook-how").hidden = !there;
    part(root, "webhook-at-home").hidden = !atHome;
    part(root, "webhook-remove").hidden = !there;
    part(root, "webhook-make").textContent = there ? "Make a new secret" : "Make a secret";
    say(root, {
      "webhook-url": new URL(`/api/hooks/${page.id}`, location.href).href,
      "webhook-state": there
        ? "A secret is saved. Pushes signed with it are accepted."
        : "No secret, no webhook: nothing is accepted yet.",
    });
  }
  function showSecret(secret) {
    part(root, "webhook-new").hidden = secret === "";
    say(root, { "webhook-secret": secret, "webhook-copied": "" });
  }

  onClick(part(root, "webhook-make"), place, async () => {
    const { secret } = await post(path);
    page.show({ ...page.app, hasWebhookSecret: true });
    showSecret(secret);
    part(root, "webhook-secret").focus();
  });
  onClick(part(root, "webhook-remove"), place, async () => {
    await remove(path);
    showSecret("");
    page.show({ ...page.app, hasWebhookSecret: false });
    part(root, "webhook-make").focus();
  });
  const [secret, copied] = ["webhook-secret", "webhook-copied"].map((name) => part(root, name));
  onClick(part(root, "webhook-copy"), place, () => copyText(secret, copied));
  auto.addEventListener("change", async () => {
    place.textContent = "";
    try {
      page.show(await patch(page.path, { autoDeploy: auto.checked }));
    } catch (failure) {
      place.textContent = failure.message;
      show();
    }
  });
  page.onChange(show);
  show();
}
