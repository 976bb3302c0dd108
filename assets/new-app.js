// The form that adds an app.

import { copy, onSubmit, part, post } from "./core.js";
import { appFields } from "./app-fields.js";

/** What would become of a repository, in sentences. */
async function tellWhatItIs(place, { gitRepo, branch, rootDir, gitToken }) {
  place.textContent = "Fetching it …";
  try {
    const asked = Object.entries({ gitRepo, branch, rootDir, gitToken }).filter(([, value]) => value);
    const seen = await post("/api/detect", Object.fromEntries(asked));
    const found = [...seen.notes];
    if (seen.build) found.push(`Builds with: ${seen.build}`);
    if (seen.start) found.push(`Starts with: ${seen.start}`);
    if (seen.publish) found.push(`Serves the files of ${seen.publish}, if the build leaves them.`);
    if (seen.error) found.push(seen.error);
    if (seen.branches.length > 1) found.push(`Branches: ${seen.branches.join(", ")}`);
    place.replaceChildren(...found.map((text) => Object.assign(document.createElement("p"), { textContent: text })));
  } catch (failure) {
    place.textContent = "";
    throw failure;
  }
}

export async function newAppView({ go }) {
  const root = copy("view-new-app");
  const fields = appFields();
  part(root, "fields").replaceWith(fields.root);
  onSubmit(root.querySelector("form"), async (_, button) => {
    if (button.value === "look") return tellWhatItIs(part(root, "seen"), fields.read());
    const app = await post("/api/apps", fields.read());
    if (button.value !== "deploy") return go(`#/apps/${app.id}`);
    try {
      const deploy = await post(`/api/apps/${app.id}/deploys`);
      return go(`#/apps/${app.id}/deploys/${deploy.id}`);
    } catch (failure) {
      // The app is there now, so its own page is the place to go on from.
      return go(`#/apps/${app.id}`, `The app was added, but not deployed. ${failure.message}`);
    }
  });
  return { root, title: "Add an app" };
}
