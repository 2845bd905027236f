// A store's summary as text for people and as JSON for programs. Both tell the same; the JSON's
// names are part of what docs/hearth-tool.md promises.

import LogStore
import SegmentFormat

extension SegmentInfo {
    var streamName: String {
        switch stream {
        case .fresh: "fresh"
        case .reinserted: "reinserted"
        case .recordsA: "records-a"
        case .recordsB: "records-b"
        case nil: "-"
        }
    }
}

extension StoreSummary {
    /// One screen.
    package var text: String {
        var out = "store      \(Figures.identity(manifest.store))"
        out += "  \(manifest.mode == StoreMode.store.rawValue ? "store" : "cache") mode"
        out += manifest.readOnlyFormat ? ", read-only to this version\n" : "\n"
        out += "capacity   \(Figures.size(manifest.capacityBytes)) in segments of "
        out += "\(Figures.size(manifest.segmentBytes)), blocks of at most "
        out += "\(Figures.size(manifest.maxBlockBytes))\n"
        out += "epoch      \(manifest.epoch), membership \(manifest.membershipEpoch); versions "
        out += "below \(manifest.versionLimit), generations below \(manifest.generationLimit)\n"
        let counted = states.filter { $0.1 > 0 }.map { "\($0.1) \($0.0.rawValue)" }
        out += "segments   \(segments.count): \(counted.joined(separator: ", "))\n"
        out += "blocks     \(blocks), \(Figures.size(valueBytes)) of values"
        out += contested > 0 ? "; of \(contested) keys the newer value is unproven\n" : "\n"
        for checkpoint in checkpoints {
            out += "checkpoint \(checkpoint.sequence), \(checkpoint.entries) entries, "
            out += Figures.time(checkpoint.beganAt)
            out += checkpoint.isUsed ? "\n" : ", not used\n"
        }
        out += "\n" + spaceTable + "\n" + memberTable
        if !spaces.isEmpty { out += "\n" + namespaceText }
        if !findings.isEmpty {
            out += "\n\(findings.count) findings on the way; `hearth verify` tells all:\n"
            for finding in findings.prefix(8) { out += "  \(finding.line)\n" }
        }
        return out
    }

    private var parts: [(String, UInt64)] {
        [
            ("live", space.live), ("dead", space.dead), ("free", space.free), ("open", space.open),
            ("metadata", space.metadata), ("reserve", space.reserve),
            ("quarantined", space.quarantined),
        ]
    }

    private var spaceTable: String {
        Figures.table(
            ["space", "bytes", "", "share"],
            parts.map {
                [
                    $0.0, String($0.1), Figures.size($0.1),
                    Figures.percent($0.1, of: space.capacity),
                ]
            })
    }

    private var memberTable: String {
        Figures.table(
            ["member", "state", "segments", "files", "directory"],
            members.map {
                [String($0.index), $0.state, String($0.segments), String($0.files), $0.path]
            }, left: [0, 1, 4])
    }

    /// One line a namespace.
    package var namespaceText: String {
        Figures.table(
            ["namespace", "blocks", "bytes", "expired", "layout", "ttl", "cap", "fields"],
            spaces.map {
                [
                    String($0.record.instance), String($0.blocks), Figures.size($0.bytes),
                    String($0.expired), $0.record.aligned ? "aligned" : "packed",
                    $0.record.ttlSeconds == 0 ? "-" : "\($0.record.ttlSeconds) s",
                    $0.record.capBytes == 0 ? "-" : Figures.size($0.record.capBytes), $0.name,
                ]
            }, left: [0, 4, 7])
    }

    /// One line a segment; of one only, if asked.
    package func segmentText(only id: UInt32? = nil) -> String {
        let page = UInt64(FormatConstants.pageBytes)
        return Figures.table(
            [
                "segment", "member", "state", "generation", "age", "stream", "records", "live",
                "live bytes", "share", "written", "sealed",
            ],
            segments.filter { id == nil || id == $0.id }.map { info in
                [
                    String(info.id), String(SegmentTable.device(info.id)), info.state.rawValue,
                    String(info.generation), String(age(info)), info.streamName,
                    String(info.records), String(info.liveBlocks),
                    Figures.size(UInt64(info.livePages) * page),
                    Figures.decimal(100 * liveShare(info), 1) + " %",
                    Figures.size(UInt64(info.writtenPages) * page), Figures.time(info.sealedAt),
                ]
            }, left: [2, 5, 11])
    }

    // MARK: JSON

    package func json(segments withSegments: Bool, namespaces onlyNamespaces: Bool) -> JSONText {
        if onlyNamespaces { return .object([("namespaces", spaceList)]) }
        var made: [(String, JSONText)] = [
            ("store", .text(Figures.identity(manifest.store))),
            ("mode", .text(manifest.mode == StoreMode.store.rawValue ? "store" : "cache")),
            ("capacity_bytes", .count(manifest.capacityBytes)),
            ("segment_bytes", .count(manifest.segmentBytes)),
            ("max_block_bytes", .count(manifest.maxBlockBytes)),
            ("epoch", .count(manifest.epoch)),
            ("membership_epoch", .count(manifest.membershipEpoch)),
            ("version_limit", .count(manifest.versionLimit)),
            ("generation_limit", .count(manifest.generationLimit)),
            ("read_only_format", .flag(manifest.readOnlyFormat)),
            ("blocks", .count(blocks)), ("value_bytes", .count(valueBytes)),
            ("contested_keys", .count(contested)),
            ("space", .object(parts.map { ($0.0, .count($0.1)) })),
            (
                "segments_by_state",
                .object(states.map { ($0.0.rawValue, .count($0.1)) })
            ),
            (
                "members",
                .array(
                    members.map {
                        .object([
                            ("index", .count($0.index)), ("directory", .text($0.path)),
                            ("state", .text($0.state)), ("segments", .count($0.segments)),
                            ("files", .count($0.files)),
                        ])
                    })
            ),
            (
                "checkpoints",
                .array(
                    checkpoints.map {
                        .object([
                            ("path", .text($0.path)), ("sequence", .count($0.sequence)),
                            ("entries", .count($0.entries)),
                            ("began_at", .count(UInt64($0.beganAt))), ("used", .flag($0.isUsed)),
                        ])
                    })
            ),
            ("namespaces", spaceList),
            ("findings", .array(findings.map(\.json))),
        ]
        if withSegments { made.append(("segments", .array(segments.map { json(of: $0) }))) }
        return .object(made)
    }

    private var spaceList: JSONText {
        .array(
            spaces.map { space in
                .object([
                    ("instance", .count(space.record.instance)),
                    ("slot", .count(Int(space.record.slot))),
                    ("fingerprint", .text(Figures.identity(space.record.fingerprint))),
                    ("fields", .object(space.record.fields.map { ($0.0, .text($0.1)) })),
                    ("layout", .text(space.record.aligned ? "aligned" : "packed")),
                    ("ttl_seconds", .count(UInt64(space.record.ttlSeconds))),
                    ("cap_bytes", .count(space.record.capBytes)),
                    ("blocks", .count(space.blocks)), ("value_bytes", .count(space.bytes)),
                    ("expired_blocks", .count(space.expired)),
                ])
            })
    }

    package func json(of info: SegmentInfo) -> JSONText {
        let page = UInt64(FormatConstants.pageBytes)
        return .object([
            ("segment", .count(UInt64(info.id))),
            ("member", .count(SegmentTable.device(info.id))),
            ("file", .text(StoreFiles.segment(SegmentTable.local(info.id)))),
            ("state", .text(info.state.rawValue)), ("generation", .count(info.generation)),
            ("age", .count(age(info))), ("stream", .text(info.streamName)),
            ("records", .count(info.records)), ("tombstones", .count(info.killers)),
            ("live_blocks", .count(info.liveBlocks)),
            ("live_bytes", .count(UInt64(info.livePages) * page)),
            ("live_value_bytes", .count(info.liveBytes)),
            ("live_share", .number(liveShare(info))),
            ("metadata_bytes", .count(UInt64(info.metaPages) * page)),
            ("written_bytes", .count(UInt64(info.writtenPages) * page)),
            ("footer", .flag(info.usedFooter)), ("began_at", .count(UInt64(info.beganAt))),
            ("sealed_at", .count(UInt64(info.sealedAt))),
        ])
    }
}

extension Finding {
    package var json: JSONText {
        .object([
            ("severity", .text(severity.rawValue)), ("structure", .text(structure.rawValue)),
            ("path", .text(path)), ("offset", .count(offset)), ("length", .count(length)),
            ("segment", segment.map { .count(UInt64($0)) } ?? .null),
            ("generation", .count(generation)), ("text", .text(text)),
            ("key_count", .count(keyCount)),
            (
                "keys",
                .array(
                    keys.map {
                        .object([
                            ("namespace", .count($0.namespace)),
                            ("key", .text(KeyText.of($0.bytes))),
                            ("hex", .text(KeyText.hex($0.bytes))), ("version", .count($0.version)),
                        ])
                    })
            ),
        ])
    }
}

extension VerifyReport {
    package func json(store: String) -> JSONText {
        .object([
            ("store", .text(store)), ("clean", .flag(isClean)),
            ("damage", .count(damage.count)), ("notes", .count(notes.count)),
            (
                "checked",
                .object([
                    ("manifest_copies", .count(manifestCopies)), ("segments", .count(segments)),
                    ("footer_pages", .count(footerPages)),
                    ("descriptor_pages", .count(descriptorPages)), ("records", .count(records)),
                    ("checkpoint_chunks", .count(checkpointChunks)),
                    ("checkpoint_entries", .count(checkpointEntries)),
                    ("blocks", .count(blocks)), ("whole_blocks", .count(wholeBlocks)),
                    ("value_bytes", .count(valueBytes)), ("shards", .count(shards)),
                    ("dead_blocks", .count(deadBlocks)), ("dead_damaged", .count(deadDamaged)),
                    ("bytes_read", .count(bytesRead)),
                ])
            ),
            ("findings", .array(findings.map(\.json))),
        ])
    }

    /// What was checked, and each finding with its keys.
    package func text(keys most: Int = 8) -> String {
        var out = ""
        for finding in findings {
            out += finding.line + "\n"
            for key in finding.keys.prefix(most) {
                out += "    key \(KeyText.of(key.bytes)), namespace \(key.namespace), version "
                out += "\(key.version)\n"
            }
            if finding.keyCount > most {
                out += "    … and \(finding.keyCount - most) more (--json tells up to "
                out += "\(Finding.keyLimit))\n"
            }
        }
        out += "checked \(manifestCopies) manifest copies, \(segments) segments, "
        out += "\(footerPages) footer and \(descriptorPages) descriptor pages, "
        out += "\(checkpointEntries) checkpoint entries\n"
        out += "\(wholeBlocks) of \(blocks) blocks are whole (\(Figures.size(valueBytes)), "
        out += "\(shards) shards)"
        if deadDamaged > 0 { out += "; \(deadDamaged) of \(deadBlocks) dead ones are not" }
        let (bad, told) = (damage.count, notes.count)
        out += isClean ? "\nclean" : "\ndamaged: \(bad) \(bad == 1 ? "finding" : "findings")"
        return out + (told > 0 ? ", \(told) \(told == 1 ? "note" : "notes")\n" : "\n")
    }
}
