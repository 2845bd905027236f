// swift-tools-version: 6.1
import PackageDescription

// The core (SegmentFormat … Hearth) links liburing and ISA-L only and imports no Foundation.
// Imports run downwards; Tests/HouseTests holds them to that.
let strict: [SwiftSetting] = [.swiftLanguageMode(.v6)]

let package = Package(
    name: "hearth",
    products: [
        .library(name: "Hearth", targets: ["Hearth"]),
        .library(name: "hearth", type: .dynamic, targets: ["HearthABI"]),
        .executable(name: "hearth-bench", targets: ["hearth-bench"]),
        // Installed as `hearth`; the library has that name here.
        .executable(name: "hearth-cli", targets: ["hearth-cli"]),
    ],
    dependencies: [
        .package(url: "https://github.com/apple/swift-argument-parser", from: "1.8.2")
    ],
    targets: [
        .systemLibrary(
            name: "CLiburing", pkgConfig: "liburing", providers: [.apt(["liburing-dev"])]),
        .systemLibrary(name: "CISAL", pkgConfig: "libisal", providers: [.apt(["libisal-dev"])]),
        .target(name: "CPlatform"),
        .target(name: "SegmentFormat", dependencies: ["CISAL"], swiftSettings: strict),
        .target(name: "BlockIO", dependencies: ["CLiburing", "CPlatform"], swiftSettings: strict),
        .target(
            name: "SimulatedDisk", dependencies: ["BlockIO", "CPlatform"], swiftSettings: strict),
        .target(
            name: "LogStore", dependencies: ["SegmentFormat", "BlockIO", "CPlatform"],
            swiftSettings: strict),
        .target(name: "Staging", dependencies: ["LogStore", "BlockIO"], swiftSettings: strict),
        .target(name: "Heat", dependencies: ["Staging", "LogStore"], swiftSettings: strict),
        .target(
            name: "Prefetch", dependencies: ["Heat", "Staging", "LogStore", "BlockIO"],
            swiftSettings: strict),
        .target(
            name: "Tiering", dependencies: ["Prefetch", "Heat", "Staging", "LogStore", "BlockIO"],
            swiftSettings: strict),
        .target(
            name: "Hearth",
            dependencies: [
                "Tiering", "Prefetch", "Heat", "Staging", "LogStore", "BlockIO", "SegmentFormat",
            ], swiftSettings: strict),
        .target(
            name: "StoreTools", dependencies: ["Staging", "LogStore", "BlockIO", "SegmentFormat"],
            swiftSettings: strict),
        .executableTarget(
            name: "hearth-cli",
            dependencies: [
                "StoreTools", "LogStore", "BlockIO", "SegmentFormat",
                .product(name: "ArgumentParser", package: "swift-argument-parser"),
            ], swiftSettings: strict),
        .target(name: "CHearth"),
        .target(
            name: "HearthABI",
            dependencies: [
                "CHearth", "CPlatform", "Hearth", "Tiering", "Staging", "LogStore", "BlockIO",
            ], swiftSettings: strict),
        .executableTarget(
            name: "hearth-bench",
            dependencies: [
                "Hearth", "HearthABI", "CHearth", "StoreTools", "Tiering", "Prefetch", "Heat",
                "Staging", "LogStore", "SegmentFormat", "BlockIO", "SimulatedDisk", "BenchKit",
                "CMeasure",
                .product(name: "ArgumentParser", package: "swift-argument-parser"),
            ], swiftSettings: strict),
        .target(name: "CMeasure"),
        .target(
            name: "BenchKit",
            dependencies: ["Heat", "Staging", "BlockIO", "CZlib"], swiftSettings: strict),
        .systemLibrary(name: "CZlib", pkgConfig: "zlib", providers: [.apt(["zlib1g-dev"])]),
        .executableTarget(
            name: "hearth-torture",
            dependencies: [
                "HearthABI", "CHearth", "Hearth", "StoreTools", "Tiering", "Prefetch", "Heat",
                "Staging", "LogStore", "SimulatedDisk", "BlockIO", "SegmentFormat",
            ],
            path: "Tests/Torture", swiftSettings: strict),
        .testTarget(
            name: "SegmentFormatTests", dependencies: ["SegmentFormat"], exclude: ["Golden"],
            swiftSettings: strict),
        .testTarget(name: "BlockIOTests", dependencies: ["BlockIO"], swiftSettings: strict),
        .testTarget(
            name: "SimulatedDiskTests", dependencies: ["SimulatedDisk", "BlockIO"],
            swiftSettings: strict),
        .testTarget(
            name: "LogStoreTests", dependencies: ["LogStore", "Staging", "SimulatedDisk"],
            swiftSettings: strict),
        .testTarget(name: "StagingTests", dependencies: ["Staging"], swiftSettings: strict),
        .testTarget(name: "HeatTests", dependencies: ["Heat", "Staging"], swiftSettings: strict),
        .testTarget(
            name: "PrefetchTests", dependencies: ["Prefetch", "LogStore"], swiftSettings: strict),
        .testTarget(
            name: "TieringTests",
            dependencies: ["Tiering", "Prefetch", "Heat", "Staging", "LogStore", "SimulatedDisk"],
            swiftSettings: strict),
        .testTarget(
            name: "HearthTests",
            dependencies: [
                "Hearth", "StoreTools", "LogStore", "SegmentFormat", "BlockIO", "SimulatedDisk",
                "hearth-cli", "hearth-bench",
            ], swiftSettings: strict),
        .testTarget(
            name: "HearthABITests",
            dependencies: ["HearthABI", "CHearth", "Hearth", "Staging", "LogStore"],
            swiftSettings: strict),
        .testTarget(
            name: "HearthBenchTests", dependencies: ["BenchKit", "Hearth", "hearth-bench"],
            swiftSettings: strict),
        .testTarget(
            name: "StoreToolsTests",
            dependencies: ["StoreTools", "hearth-cli", "Staging", "LogStore", "SimulatedDisk"],
            swiftSettings: strict),
        .testTarget(name: "HouseTests", swiftSettings: strict),
    ]
)
