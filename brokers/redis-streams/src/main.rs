fn main() -> anyhow::Result<()> {
    account::main::<onceonly_redis_streams::RedisStreams>()
}
