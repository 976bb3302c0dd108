// What every screen needs. The server answers with these modules in one, so that a first visit
// waits for one file. A screen imports from here; from one of them it would get a second copy.

export * from "./api.js";
export * from "./ui.js";
export * from "./stats.js";
export * from "./sign-in.js";
export * from "./app.js";
