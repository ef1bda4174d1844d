fn main() -> anyhow::Result<()> {
    account::main::<onceonly_nats::Nats>()
}
