extension Statistics {
    /// Placeholder
    public func prometheus() -> String { "" }
}
