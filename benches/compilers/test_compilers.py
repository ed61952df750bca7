"""python3 -m unittest discover benches/compilers: the reading of machine code, and the check of budgets."""
import unittest

import compilers
import machine_code

# A loop that asks for weights (binding 2) ahead, and for x (binding 3) when it needs it.
AMD = """
\ts_load_b256 s[24:31], s[2:3], 0x20
\tbuffer_load_b128 v[0:3], v8, s[24:27], 0 offen
BB1:
\tbuffer_load_b128 v[4:7], v8, s[24:27], 0 offen offset:16
\tbuffer_load_b128 v[12:15], v8, s[28:31], 0 offen
\ts_waitcnt vmcnt(1)
\tv_dual_fmac_f32 v1, v2, v3 :: v_dual_fmac_f32 v4, v5, v6
""" + "\tv_fma_f32 v1, v2, v3, v1\n" * 8 + """
\ts_waitcnt vmcnt(0) & lgkmcnt(0)
\ts_barrier
\ts_cbranch_scc1 BB1
\tbuffer_store_b32 v1, v8, s[28:31], 0 offen
"""
NVIDIA = """
block 1 L1 [0] -> {
      r1 = ld.global.a64.constant.b128 [r16..18], p3   // delay=2 rd:0 wr:1
      r5 = ld.global.a64.constant.b32 [r16..18], p3    // delay=2 wr:2
""" + "      r3 = ffma.ftz r34 r16 r3                        // delay=1 wt=000010\n" * 8 + """
      r6 = ld.global.a64.constant.b32 [r16..18], p3    // delay=2 wr:1
@!p0  bra pT L1                                        // delay=1 wt=000100
"""
INTEL = """
LABEL5:
send(32)        g23UD           g21UD           nullUD          0x64803500                0x03000000
                ugm MsgDesc: ( load, a32, d32, V4, L1STATE_L3MOCS dst_len = 8, src0_len = 2, src1_len = 0 bti )  BTI 2  base_offset 0  { align1 A@4 $3 };
send(32)        g71UD           g69UD           nullUD          0x64200500                0x02000000
                ugm MsgDesc: ( load, a32, d32, V1, L1STATE_L3MOCS dst_len = 2, src0_len = 2, src1_len = 0 bti )  BTI 2  base_offset 0  { align1 I@3 $4 };
""" + "mad(32)         g62<1>F         g9<8,8,1>F      g23<8,8,1>F     g94<1,1,1>F { align1 @7 $3.dst };\n" * 8 + """
sync nop(1)                     null<0,1,0>UB                   { align1 WE_all 1N $4.dst };
while(32)       JIP:  LABEL5                                    { align1 };
"""


class MachineCode(unittest.TestCase):
    def test_amd(self):
        facts = machine_code.analyse("amd", AMD)
        self.assertEqual((facts["fma"], facts["alu"], facts["loads"], facts["load_bytes"], facts["barriers"]), (10, 9, 2, 32, 1))
        self.assertEqual(facts["in_flight"], 2)
        self.assertEqual(facts["bindings"], {2: [1, 16, 1], 3: [1, 16, 1]})

    def test_waits_of_one_turn_are_for_loads_of_the_one_before(self):
        kept = AMD.replace("vmcnt(0) &", "").replace("vmcnt(1)", "vmcnt(3)")
        self.assertEqual(machine_code.analyse("amd", kept)["in_flight"], 4)

    def test_the_loop_of_what_is_left_over_does_not_count(self):
        turn = "\tbuffer_load_b64 v[0:1], v8, s[24:27], 0 offen\n"
        multiply = "\tv_fma_f32 v1, v2, v3, v1\n" * 8
        loop = "BB1:\n" + 4 * turn + "\ts_waitcnt vmcnt(0)\n" + 4 * multiply + "\ts_cbranch_scc1 BB1\n"
        rest = "BB2:\n" + turn + "\ts_waitcnt vmcnt(0)\n" + multiply + "\ts_cbranch_scc1 BB2\n"
        self.assertEqual(machine_code.analyse("amd", loop + rest)["in_flight"], 4)
        # Other arithmetic makes it a loop of its own.
        other = rest.replace(multiply, multiply + multiply[:len(multiply) // 8])
        self.assertEqual(machine_code.analyse("amd", loop + other)["in_flight"], 1)

    def test_nvidia(self):
        facts = machine_code.analyse("nvidia", NVIDIA)
        self.assertEqual((facts["fma"], facts["loads"], facts["load_bytes"]), (8, 3, 24))
        # The wait for board 1 comes before the third load; board 2 is waited for at the end.
        self.assertEqual(facts["in_flight"], 3)

    def test_intel(self):
        facts = machine_code.analyse("intel", INTEL)
        self.assertEqual((facts["fma"], facts["loads"], facts["load_bytes"], facts["in_flight"]), (8, 2, 20, 2))
        self.assertEqual(facts["bindings"], {2: [2, 20, 2]})

    def test_code_that_cannot_be_read(self):
        self.assertIsNone(machine_code.analyse("apple", "anything"))
        self.assertIsNone(machine_code.analyse("amd", ""))


def kernel(facts, driver="amd:navi31", **constants):
    line = {"module": "m", "files": ["matmul_rows", "weights/bf16"], "constants": constants, "choices": ["default"]}
    use = {"op": "product", "rows": 8, "role": "round", "dispatches": [{"module": "m", "grid": [1, 1, 1]}]}
    return compilers.Kernel(driver, line, [use], facts)


class Budgets(unittest.TestCase):
    RULE = {"name": "few", "where": {"driver": "amd:*", "rows": {"to": 16}}, "at_most": {"spills": 0}, "at_least": {"occupancy": 8}}

    def check(self, items, exceptions=()):
        return compilers.check({"rules": [self.RULE], "exceptions": list(exceptions)}, items, [])

    def test_what_keeps_its_budget(self):
        for item in (kernel({"spills": 0, "occupancy": 8}), kernel({"spills": 9}, driver="apple"), kernel({})):
            self.assertEqual(self.check([item]), ([], set()))

    def test_what_exceeds_it(self):
        for facts in ({"spills": 1, "occupancy": 8}, {"spills": 0, "occupancy": 7}, {"failure": "VkResult -3"}):
            exceeded, _ = self.check([kernel(facts)])
            self.assertEqual(len(exceeded), 1)
            self.assertEqual(len(exceeded[0][2]), 1)

    def test_alternatives_have_no_budget(self):
        item = kernel({"spills": 1})
        item.choices = ["tuner"]
        self.assertEqual(self.check([item]), ([], set()))

    def test_an_exception_has_limits_of_its_own(self):
        exception = {"rule": "few", "where": {"ROWS": 8}, "at_most": {"spills": 5}, "reason": "a test"}
        self.assertEqual(self.check([kernel({"spills": 5}, ROWS=8)], [exception]), ([], {0}))
        self.assertEqual(len(self.check([kernel({"spills": 6}, ROWS=8)], [exception])[0]), 1)
        self.assertEqual(len(self.check([kernel({"spills": 5}, ROWS=4)], [exception])[0]), 1)
        # It excuses nothing that it does not name, and nothing that fails to compile.
        self.assertEqual(len(self.check([kernel({"spills": 5, "occupancy": 7}, ROWS=8)], [exception])[0]), 1)
        self.assertEqual(len(self.check([kernel({"failure": "VkResult -3"}, ROWS=8)], [exception])[0]), 1)

    def test_an_exception_that_nothing_needs(self):
        exception = {"rule": "few", "where": {"ROWS": 8}, "at_most": {"spills": 5}, "reason": "a test"}
        budgets = {"rules": [self.RULE], "exceptions": [exception]}
        for item, expected in ((kernel({"spills": 0}, ROWS=8), [exception]), (kernel({"spills": 0}, ROWS=4), [])):
            _, needed = compilers.check(budgets, [item], [])
            self.assertEqual(compilers.unneeded(budgets, needed, [item], []), expected)


class Experts(unittest.TestCase):
    def use(self, rows, most):
        line = {"module": "m", "files": ["matmul_experts"], "constants": {"ROWS": most, "LANES": 32}, "choices": ["default"]}
        use = {
            "op": "product", "experts": [4, 1], "rows": rows, "weight_rows": 128, "pair": 1, "choice": "default",
            "dispatches": [{"module": "m", "grid": [9, 5, 1]}],
        }
        return compilers.Use("amd:navi31", use, {"m": compilers.Kernel("amd:navi31", line, [use], {})})

    def test_groups(self):
        # Two rows take the same of four experts in a quarter of all cases.
        for most, groups in ((1, 2), (2, 1.75)):
            use = self.use(2, most)
            self.assertAlmostEqual(use.groups(), groups)
            self.assertAlmostEqual(use.workgroups(), 5 * groups)
            self.assertAlmostEqual(use.passes(), groups / 1.75)
        self.assertAlmostEqual(self.use(512, 512).passes(), 1)


if __name__ == "__main__":
    unittest.main()
