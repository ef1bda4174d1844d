fn main() -> anyhow::Result<()> {
    account::main::<onceonly_kafka::Kafka>()
}
