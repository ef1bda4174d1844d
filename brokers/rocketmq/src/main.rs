use anyhow::Result;
use clap::{Parser, Subcommand};
use onceonly_rocketmq::{Place, consume, produce};

#[derive(Parser)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Place orders, each with a transactional message.
    Produce {
        #[command(flatten)]
        place: Place,
        #[arg(long, default_value_t = 100)]
        orders: u64,
    },
    /// Handle the messages of placed orders.
    Consume {
        #[command(flatten)]
        place: Place,
        #[arg(long, default_value = "onceonly")]
        group: String,
        /// Stop after so many messages.
        #[arg(long, default_value_t = 100)]
        messages: u64,
    },
}

#[tokio::main]
async fn main() -> Result<()> {
    match Cli::parse().command {
        Command::Produce { place, orders } => produce(&place, orders).await,
        Command::Consume { place, group, messages } => consume(&place, &group, messages).await,
    }
}
