//! The states of apps and deploys, with the words that the API and the database use.

use super::Invalid;

macro_rules! words {
    ($(#[$doc:meta])* $name:ident { $($(#[$vdoc:meta])* $variant:ident = $word:literal),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize)]
        pub enum $name { $($(#[$vdoc])* #[serde(rename = $word)] $variant),+ }

        impl $name {
            /// The word in the API and the database.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $word),+ }
            }

            /// Reads the word.
            ///
            /// # Errors
            /// [`Invalid`] when it is none of them.
            pub fn parse(word: &str) -> Result<Self, Invalid> {
                match word {
                    $($word => Ok(Self::$variant),)+
                    _ => Err(Invalid(concat!("is none of:" $(, " ", $word)+))),
                }
            }
        }
    };
}

words! {
    /// What an app is doing now.
    AppStatus {
        /// Never deployed.
        New = "new",
        /// A deploy is queued or under way; a live release keeps serving meanwhile.
        Deploying = "deploying",
        /// Its process is being started and does not listen yet.
        Starting = "starting",
        /// Its live release runs.
        Running = "running",
        /// Its live release is being started anew beside itself, as its owner wants.
        Restarting = "restarting",
        /// Its owner stopped it, and it has not ended yet.
        Stopping = "stopping",
        /// Its owner stopped it.
        Stopped = "stopped",
        /// It ends again and again, and is started again each time.
        CrashLooping = "crash-looping",
        /// Its live release should run and ended.
        Crashed = "crashed",
        /// Its deploy failed and it has no live release.
        Failed = "failed",
    }
}

words! {
    /// How far a deploy has come: the steps of the pipeline, in order, then the two ends.
    DeployStatus {
        /// Waits for its turn.
        Queued = "queued",
        /// Gets the source.
        Fetching = "fetching",
        /// Runs the build command.
        Building = "building",
        /// Starts the release.
        Starting = "starting",
        /// Waits for the release to prove itself.
        Checking = "checking",
        /// The release receives the traffic, or did until a later one took over.
        Live = "live",
        /// It ended early; the reason is in its `error`.
        Failed = "failed",
    }
}

impl DeployStatus {
    /// Nothing more will happen to a deploy in this state.
    pub const fn is_final(self) -> bool {
        matches!(self, Self::Live | Self::Failed)
    }
}

words! {
    /// Who asked for a deploy.
    Trigger {
        /// The owner pressed the button.
        Manual = "manual",
        /// A script called `POST /api/deploy`.
        Api = "api",
        /// A Git host told of a push.
        Webhook = "webhook",
        /// The owner went back to an earlier release.
        Rollback = "rollback",
        /// The owner wanted a new process of the live release.
        Restart = "restart",
        /// The owner sent an archive of the source.
        Upload = "upload",
    }
}

words! {
    /// What the owner wants of an app, whatever it is doing now.
    Wanted {
        /// It should run; a crash is repaired.
        Running = "running",
        /// It should not run.
        Stopped = "stopped",
    }
}
