import math
from agent.planner.spot import Placer, Setting, State
from agent.simulate.protocol import IDLE, ON_DEMAND, SPOT, Launch

class Ours:
    def __init__(self, setting=None): self.setting = setting
    def start(self, job):
        self.job = job; H = 3600
        self.placer = Placer(work_h=job.work_s / H, left_h=job.deadline_s / H, startup_h=job.startup_s / H, tick_h=job.tick_s / H, egress_usd=job.egress_usd, setting=self.setting)
        self.last = None
    def decide(self, seen):
        j, w = self.job, self.placer.watch
        if not seen.tried:
            if self.last is not None: w.tick(round((seen.now_s - self.last) / j.tick_s))
            self.last = seen.now_s
            if seen.mode == SPOT: w.saw(seen.zone, True)
            if seen.preempted is not None: w.saw(seen.preempted, False)
            self.asked = set()
        else:
            r = seen.tried[-1]
            if r.action.kind == SPOT: w.saw(r.action.zone, r.ok); self.asked.add(r.action.zone)
            if r.ok: return None
        s = State(work_h=seen.work_left_s / 3600, left_h=(math.floor((j.deadline_s - seen.now_s) / j.tick_s + 1e-9) * j.tick_s if self.placer.setting.floor else j.deadline_s - seen.now_s) / 3600, mode=seen.mode, zone=seen.zone, home=seen.home, startup_left_h=seen.startup_left_s / 3600, spot_usd_h=tuple(seen.spot_usd_h), on_demand_usd_h=tuple(seen.on_demand_usd_h))
        a = self.placer.decide(s, seen.now_s / 3600, self.asked)
        return None if a is None else Launch(*a)

def policy(): return Ours()
