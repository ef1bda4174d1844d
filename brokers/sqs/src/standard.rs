fn main() -> anyhow::Result<()> {
    account::main::<onceonly_sqs::Sqs<onceonly_sqs::Standard>>()
}
