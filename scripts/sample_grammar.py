"""Grammar of the sample data: what scripts/make_sample_data.py writes Chinese customer-service questions from.

Tables only, no algorithm; all wording is invented for this project. How to read them:

* A slot is one string: its values stand apart by a space, the ways of naming one value by "/". The first way is the
  plain name. Ways of naming one value must mean the same; two values of a slot must not.
* An intent is a tuple of templates: ways of saying the same thing. Every template of an intent names the same slots.
  Two intents must not be paraphrases of each other (the same words about another slot value are meant to be there).
* An intent with a single slot, one of its domain's own, gets "{brand}的" in front of that slot, so that its texts are
  as specific as those of the intents with several slots.
* The meaning of a text is its intent plus its slot values; all the rest (template, name, wrapper, typo) is surface.

Write "如何" only where the how-to sense is meant, as VARIANTS replaces it; write "怎么" for every other sense.
"""

from typing import NamedTuple


class Domain(NamedTuple):
    """One field of service: its companies (a slot, all names invented), its own slots, the templates of each intent."""

    brands: str
    slots: dict[str, str]
    intents: dict[str, tuple[str, ...]]


# Function words that can stand for each other anywhere in a template; the key itself stays a choice.
VARIANTS: dict[str, tuple[str, ...]] = {
    "如何": ("怎么", "怎样", "咋", "要怎么"),
    "为什么": ("为啥", "怎么", "为何"),
    "怎么办": ("咋办", "怎么处理", "该怎么解决"),
    "能不能": ("可不可以", "能否", "可否"),
    "什么时候": ("啥时候", "几时", "何时"),
    "多少钱": ("多少费用", "几多钱", "啥价钱"),
    "多久": ("多长时间", "多少时间"),
    "哪里": ("哪儿", "什么地方"),
    "可以吗": ("行吗", "成吗", "行不行"),
    "可以": ("能",),
    "我的": ("我", "本人的"),
    "行吗": ("可以吗", "成吗", "行不行"),
    "想要": ("要",),
    "}的{": ("}{",),  # between two slots
}

# Words that mark a text as a question: only such a text can follow "请问".
QUESTION_WORDS: tuple[str, ...] = (
    "如何", "怎么", "怎样", "咋", "吗", "多少", "多久", "多长", "多高", "几", "哪", "什么", "啥", "能不能", "谁", "行不行",
    "有没有", "要不要", "贵不贵", "何时", "为何", "能否", "可否", "可不可以",
)
# A text that opens like this addresses the clerk already, so an asking prefix would stand twice.
REQUEST_OPENINGS: tuple[str, ...] = ("想", "我", "帮", "给我", "麻烦", "把", "要", "替", "查", "别", "急", "凭")
ASKING_PREFIXES: tuple[str, ...] = (
    "请问", "请问一下，", "麻烦问下，", "想咨询一下，", "问一下", "你好，请问", "我想了解下，", "请教一下，", "打听一下，",
)
GREETINGS: tuple[str, ...] = ("你好，", "您好，", "在吗，", "客服你好，", "亲，", "那个，", "麻烦您，", "老师好，")
SUFFIXES: tuple[str, ...] = ("，谢谢", "，在线等", "，急", "，麻烦了", "，求告知", "，辛苦了", "，挺急的", "，多谢")
QUESTION_SUFFIXES: tuple[str, ...] = ("？", "呢", "呀", "啊", "呢？", "，请告诉我")
# After one of these endings a second particle (呢, 呀) would be wrong.
CLOSED_ENDINGS: tuple[str, ...] = ("吗", "不", "没", "吧", "了", "么", "行", "呢", "的", "钱")

# Characters often typed for each other; none turns one meaning of the grammar into another.
HOMOPHONES: dict[str, str] = {
    "的": "得", "在": "再", "账": "帐", "吗": "嘛", "做": "作", "到": "道", "请": "清", "退": "腿", "订": "定", "那": "哪",
    "需": "须", "以": "已", "期": "其", "办": "半", "问": "文", "取": "去", "已": "以", "收": "手", "送": "宋",
}
# Dropping one of these leaves the meaning alone.
DROPPABLE: str = "的了我个"
# A negation twice or in another place could mean something else, and a comma is no word.
KEEP_IN_PLACE: str = "不没别，"

# Slots every domain may use; none of these takes a brand.
SHARED_SLOTS: dict[str, str] = {
    "seat": "靠窗/窗户边 靠过道/走廊边 前排/靠前的位置 后排/靠后的位置 连座/挨着的位置",
    "obj": "手机/移动电话 钱包/皮夹 雨伞/遮雨的伞 行李箱/拉杆箱 耳机/耳塞 证件/身份证 钥匙/门匙",
    "city": "北京/首都 上海/魔都 广州/羊城 成都/蓉城 重庆/山城 武汉/江城 深圳/鹏城 南京/金陵 昆明/春城 哈尔滨/冰城",
    "day": "今天/今日 明天/明日/明儿 周末/双休日 国庆/十一长假 春节/过年 下周/下礼拜/下星期 月底/月末",
    "money": "五百/500 一千/1000 三千/3000 五千/5000 一万/10000 两万/20000",
    "term": "一个月/30天 三个月/一个季度/90天 半年/六个月 一年/12个月 两年/24个月 三年/36个月",
    "who": "爸妈/父母/双亲 孩子/小孩/娃 老婆/妻子/媳妇 老公/丈夫 朋友/好友/哥们",
    "way": "手机客户端/app 柜台/网点 电话/客服热线 网站/网页 自助机/终端机",
    "adjust": "提高/上调/调高 降低/下调/调低",
}

# Companies of more than one domain.
BANKS = (
    "蓝鲸银行/鲸行 青禾银行/禾行 北桥银行/桥行 金穗银行/穗行 云山银行/云行 海棠银行/棠行 启明银行/明行 "
    "长渡银行/渡行 白塔银行/塔行 同舟银行/舟行 雪松银行/松行 沧浪银行/沧行 锦江桥银行/锦行 满谷银行/谷行 "
    "望海银行/海行 玉泉银行/泉行"
)
CARRIERS = (
    "蓝海通信/蓝海 星联移动/星联 远山电信/远山 熹微通讯/熹微 飞鸿移动/飞鸿 碧空联网/碧空 万重山通信/万重山 "
    "极昼电信/极昼 白云岭电信/白云岭 雨燕移动/雨燕 赤道通信/赤道 四方通讯/四方 银河谷联通网/银河谷 拂晓移动/拂晓"
)

DOMAINS: dict[str, Domain] = {
    "bank": Domain(
        brands=BANKS,
        slots={
            "card": "储蓄卡/借记卡 信用卡/贷记卡 工资卡/发薪水的卡 存折/活期折子 U盾/网银盾 副卡/附属卡",
            "account": "信用卡/贷记卡 网银转账/网上汇款 快捷支付/免密付款 取现/提现金 境外消费/国外刷卡",
            "notice": "短信提醒/动账通知 自动还款/到期代扣 小额免密/闪付 网上银行/网银 语音播报/到账喊话",
        },
        intents={
            "lost": (
                "{card}丢了怎么办", "我的{card}找不着了，如何挂失", "{card}遗失后要先做什么",
                "不小心把{card}弄没了该联系谁", "{card}被我搞丢了，想先冻住别让人用", "出门把{card}掉了，急着报失",
            ),
            "unlost": (
                "{card}又找到了，能不能解挂", "挂失的{card}如何恢复使用", "{card}刚报失就翻出来了，如何撤销",
                "想取消{card}的挂失", "之前以为丢的{card}在抽屉里，还能接着用吗",
                "{card}失而复得，解除报失走什么流程",
            ),
            "apply": (
                "如何申请{card}", "我想开个{card}，流程是啥", "第一次办理{card}，该走哪些步骤",
                "新办{card}从哪一步开始", "还没有{card}，想弄一个该怎么操作", "申领{card}的方法",
            ),
            "cancel": (
                "如何注销{card}", "{card}不用了想销掉", "不想再留着{card}了，销户咋弄", "把{card}取消掉要走什么手续",
                "{card}作废如何办理", "我要停掉{card}，彻底不要了",
            ),
            "material": (
                "办{card}要带什么材料", "申请{card}得准备哪些证件", "领{card}光有身份证够不够",
                "开{card}需要提供的资料清单", "去办理{card}，手上要拿些什么东西",
            ),
            "renew": (
                "{card}到期了如何换新的", "有效期过了的{card}去哪里更换", "{card}快过期，会自动寄新的吗",
                "更新到期{card}的手续", "我这{card}时间到了，换一个咋操作",
            ),
            "pwd_forget": (
                "{card}的密码忘了怎么办", "记不起{card}口令，如何重置", "{card}密码想不起来，找回的办法",
                "我把{card}的暗号忘得一干二净，能重设吗", "忘记{card}密码，重新弄一个的流程",
            ),
            "pwd_change": (
                "如何修改{card}的密码", "想给{card}换个新口令", "{card}原密码我知道，在哪里改成别的",
                "{card}的六位数字太简单，改一个怎么操作", "变更{card}密码的入口",
            ),
            "broken": (
                "{card}坏了读不出来怎么办", "机器识别不了我的{card}", "{card}损坏了如何补办",
                "{card}消磁了，插进去没反应", "{card}折断了还能接着用不",
            ),
            "limit": (
                "{account}的额度如何{adjust}", "想把{account}限额{adjust}一些",
                "{account}每天能用的上限可以{adjust}吗", "申请{adjust}{account}额度走什么流程",
                "{account}的最大金额我要{adjust}",
            ),
            "limit_ask": (
                "{account}一天最多多少", "{account}的单日上限是几万", "查一下{account}有没有额度限制",
                "{account}每日封顶金额", "用{account}，一次能到多大数目",
            ),
            "fee": (
                "{account}收手续费吗", "{account}要扣多少钱", "做一笔{account}费率是几个点", "{account}是免费的不",
                "{account}的收费标准",
            ),
            "fail": (
                "{account}为什么失败了", "{account}一直提示交易不成功", "我做{account}老是被拒绝",
                "{account}操作不了，啥原因", "{account}怎么总也过不去",
            ),
            "notice_on": (
                "如何开通{notice}", "想打开{notice}功能", "{notice}在哪里启用", "给我加上{notice}",
                "我还没有{notice}，如何设置上",
            ),
            "notice_off": (
                "如何关闭{notice}", "想取消{notice}功能", "{notice}在哪里停用", "别再给我用{notice}了",
                "我不需要{notice}，如何去掉",
            ),
            "notice_fee": (
                "{notice}每个月收多少钱", "用{notice}要付费吗", "{notice}是不是免费服务", "开{notice}会扣我钱不",
                "{notice}的月费标准",
            ),
            "trans_when": (
                "{day}转{money}当天能到吗", "{day}汇{money}，对方什么时候收到", "{money}想{day}打过去，多久到账",
                "{day}给别人转账{money}，会不会延后",
            ),
            "trans_wrong": (
                "{money}转错人了怎么办", "把{money}打到陌生卡上如何追回", "汇款{money}写错账号，能撤吗",
                "误转了{money}，请帮忙要回来",
            ),
            "save": (
                "{money}存{term}利息多少", "把{money}放定期{term}，收益是几块", "{term}的定存，{money}能拿多少息",
                "手里有{money}，存{term}划算吗",
            ),
            "save_early": (
                "{money}存了{term}的定期，没到期能取吗", "提前支取{term}定期里的{money}",
                "{term}定存的{money}急用，先拿出来会怎样", "定期{term}还没满，{money}想取走",
            ),
        },
    ),
    "loan": Domain(
        brands=BANKS,
        slots={
            "years": "三年/36个月 五年/60个月 十年/120个月 二十年/240个月 三十年/360个月",
            "sum": "五万/50000 十万/100000 二十万/200000 三十万/300000 五十万/500000",
            "loan": (
                "房贷/住房按揭 车贷/买车借款 消费贷/信用借款 助学贷/上学借的钱 经营贷/生意周转款 "
                "公积金贷/住房公积金借款"
            ),
        },
        intents={
            "early": (
                "{loan}可以提前还清吗", "想一次性把{loan}结掉", "{loan}没到期就还完行不行",
                "手里有钱了，如何提早结清{loan}", "早点还完{loan}要怎么申请", "{loan}剩下的我想全付了",
            ),
            "early_fee": (
                "{loan}提前还有违约金吗", "早还{loan}会不会罚钱", "提早结清{loan}要额外收费不",
                "{loan}没到日子就结掉，需要赔多少", "一次还完{loan}的手续费",
            ),
            "overdue": (
                "{loan}逾期了怎么办", "{loan}忘了还，有什么后果", "还款日过了{loan}没交上",
                "{loan}晚还几天会有什么影响", "这期{loan}拖欠了要紧吗",
            ),
            "delay": (
                "{loan}能不能延期", "最近手头紧，{loan}想晚点还", "{loan}可以申请展期吗",
                "还不上{loan}，宽限一阵行不行", "推迟{loan}还款日要找谁",
            ),
            "rate": (
                "{loan}的利率是多少", "借{loan}一年利息多高", "{loan}年化几个点", "办{loan}，利息怎么算",
                "查一下{loan}现在的息费标准",
            ),
            "amount": (
                "{loan}可以借到{sum}吗", "想申请{sum}的{loan}", "{loan}批{sum}有没有希望",
                "我要贷{sum}，走{loan}行不行", "{loan}的额度够不够{sum}",
            ),
            "term": (
                "{loan}分{years}还可以吗", "{loan}期限选{years}", "我打算{years}还完{loan}",
                "{loan}能不能做{years}的", "借{loan}，{years}这一档有吗",
            ),
            "progress": (
                "{loan}审批到哪一步了", "申请的{loan}还没消息，如何查", "{loan}什么时候能批下来",
                "提交了{loan}资料，结果咋样了", "看一下我{loan}的进度",
            ),
            "reject": (
                "{loan}为什么被拒", "申请{loan}没通过是啥原因", "{loan}审核失败，问题出在哪里",
                "凭什么不批我的{loan}", "{loan}没批下来，差在什么条件",
            ),
            "paycard": (
                "{loan}的还款卡如何更换", "换一张银行卡扣{loan}", "{loan}代扣账户想改成别的",
                "之前绑的卡不用了，{loan}从哪张扣能改吗", "变更{loan}扣款账号",
            ),
            "proof": (
                "{loan}的结清证明去哪里开", "{loan}还完了，凭证怎么拿", "要一份{loan}已还清的单子",
                "如何打印{loan}结清文件", "{loan}全部还了，给开个证明吧",
            ),
            "contract": (
                "{loan}合同在哪里看", "找不到{loan}协议了，能再发一份吗", "如何下载{loan}的电子合同",
                "我想查当时签的{loan}文本", "{loan}签的那份协议给我看看",
            ),
        },
    ),
    "express": Domain(
        brands=(
            "云雀快运/云雀 飞马速递/飞马 大雁物流/大雁 闪鹿配送/闪鹿 千里达/千里 蜂巢快送/蜂巢 顺水速运/顺水 "
            "白帆货运/白帆 袋鼠速达/袋鼠 红隼专递/红隼 灰兔快递社/灰兔 北风物流/北风 蓝鸽速运/蓝鸽 "
            "小毛驴专送/小毛驴 铁轨货运/铁轨 追日速递/追日"
        ),
        slots={
            "parcel": "快递/包裹 文件/信件 大件/家具货物 生鲜/冷链件 海外件/国际邮包 同城件/跑腿件",
            "addr": (
                "收货地址/送到哪的地址 发货地址/寄出地址 收件人电话/接货人号码 寄件人电话/发件方号码 "
                "收件人姓名/接货人名字"
            ),
        },
        intents={
            "where": (
                "我的{parcel}到哪了", "{parcel}物流信息查询", "如何跟踪{parcel}的位置", "{parcel}现在走到什么地方",
                "看看{parcel}运到哪一站了", "单号有了，{parcel}在哪里查",
            ),
            "slow": (
                "{parcel}为什么这么慢", "{parcel}好几天没动静", "都一个礼拜了{parcel}还没送来",
                "{parcel}卡在中转站不走了", "{parcel}迟迟不到，帮我催催",
            ),
            "lost": (
                "{parcel}寄丢了如何赔", "{parcel}不见了谁负责", "弄没了我的{parcel}，能赔多少钱",
                "{parcel}遗失如何索赔", "{parcel}找不到了，要求赔偿",
            ),
            "broken": (
                "{parcel}收到时是坏的怎么办", "{parcel}在路上摔烂了", "拆开{parcel}发现破损，找谁赔",
                "{parcel}压坏了如何理赔", "送来的{parcel}碎了，想讨个说法",
            ),
            "notmine": (
                "{parcel}显示签收但我没拿到", "没见到{parcel}，却说已经送达", "谁替我签了{parcel}",
                "{parcel}状态是已签收，可家里没有", "明明没收到{parcel}，为什么写着妥投",
            ),
            "price": (
                "往{city}寄{parcel}多少钱", "{parcel}发到{city}的运费", "到{city}的{parcel}如何收费",
                "{city}那边寄个{parcel}要几块", "我要给{city}发{parcel}，什么价",
            ),
            "days": (
                "{parcel}到{city}要几天", "往{city}寄{parcel}多久能到", "发{city}的{parcel}时效",
                "{city}那边啥时候能收着我寄的{parcel}", "{parcel}去{city}路上花多长时间",
            ),
            "pickup": (
                "{day}能上门取{parcel}吗", "预约{day}来收{parcel}", "{parcel}想{day}寄，派人过来拿",
                "叫快递员{day}到家里揽{parcel}", "{day}有没有师傅取{parcel}",
            ),
            "redeliver": (
                "{parcel}改到{day}送", "{day}再派送{parcel}可以吗", "我不在家，{parcel}{day}给我",
                "把{parcel}的配送时间换成{day}", "{parcel}想{day}收，能安排不",
            ),
            "editaddr": (
                "{addr}写错了如何改", "{addr}想换一个", "单子上{addr}填得不对，还能更正吗", "修改{addr}的办法",
                "下完单才发现{addr}有误",
            ),
            "cancel": (
                "已经下单的{parcel}不想寄了", "如何取消寄{parcel}", "{parcel}别来取了，撤单",
                "把{parcel}的寄件订单退掉", "{parcel}还没揽收，可以撤回吗",
            ),
            "reject": (
                "{parcel}可以拒收吗", "不想要这个{parcel}，当面退回行不行", "送来的{parcel}我不想收，咋拒",
                "让快递员把{parcel}带回去", "{parcel}拒签要怎么做",
            ),
            "insure": (
                "{parcel}保价费用是多少", "给{parcel}买保价贵不贵", "{parcel}值钱，加个保障收几块",
                "寄{parcel}声明价值要交多少",
            ),
            "pack": ("{parcel}如何包装", "{parcel}外面要裹几层", "{parcel}打包有什么要求", "寄{parcel}怎么裹才结实"),
            "box": (
                "寄{parcel}你们给箱子吗", "你们有没有装{parcel}的盒子", "{parcel}的外箱能提供吗",
                "没东西装{parcel}，送纸箱不",
            ),
        },
    ),
    "shop": Domain(
        brands=(
            "木棉商城/木棉 橙子优选/橙子家 海螺集市/海螺 松果超市/松果 半日闲小铺/半日闲 南瓜百货/南瓜 "
            "巷口杂货铺/巷口 月牙旗舰店/月牙 一篮好货/一篮 山雀严选/山雀 麻雀仓/麻雀 青砖生活馆/青砖 "
            "糖罐子商店/糖罐子 老槐树市集/老槐树 鲸落良品/鲸落 门口小站/门口站"
        ),
        slots={
            "goods": "手机/移动电话 衣服/服装 鞋子/球鞋 电脑/笔记本 化妆品/护肤品 图书/书本 奶粉/婴儿食品 手表/腕表",
            "coupon": "优惠券/抵用券 红包/现金礼包 积分/会员点数 礼品卡/购物卡 运费险/退货险",
        },
        intents={
            "refund": (
                "{goods}怎么退款", "不想要{goods}了，能把钱还给我吗", "{goods}申请退钱的步骤",
                "如何拿回买{goods}的货款", "买了{goods}后悔，钱可以返回不", "{goods}这单我要退款",
            ),
            "exchange": (
                "{goods}可以换货吗", "收到的{goods}不合适，想调一个", "{goods}换一件要怎么弄",
                "给我更换{goods}，别的款就行", "如何申请换个{goods}",
            ),
            "refund_when": (
                "{goods}退的钱几天到账", "退{goods}的款还没收到", "{goods}退货成功了，钱呢",
                "退掉{goods}之后，啥时候返钱", "{goods}的退款为什么还没下来",
            ),
            "fake": (
                "{goods}是正品吗", "你家{goods}会不会是假的", "怎么鉴别{goods}真伪", "收到的{goods}像山寨货",
                "{goods}保不保真",
            ),
            "stock": (
                "{goods}还有货吗", "{goods}卖完了没", "想买{goods}，库存够不够", "{goods}是不是缺货，现在能下单吗",
            ),
            "ship": (
                "{goods}什么时候发货", "买的{goods}怎么还没寄出", "下单{goods}几天了仓库没动", "催一下{goods}的发货",
                "{goods}付了钱，多久能寄走",
            ),
            "price_drop": (
                "{goods}刚买就降价，能补差价吗", "{goods}便宜了，差的钱退我", "如何申请{goods}价格保护",
                "昨天买{goods}今天打折，有没有保价", "{goods}掉价了怎么补偿",
            ),
            "invoice": (
                "{goods}如何开发票", "买{goods}能不能开票报销", "{goods}的税票在哪里申请", "给我补一张{goods}的发票",
                "{goods}订单需要报销凭证",
            ),
            "invoice_edit": (
                "{goods}发票抬头写错了", "{goods}的票能重开吗", "改一下{goods}发票上的公司名",
                "{goods}开票信息不对，如何更正", "买{goods}的税号填错，换一张",
            ),
            "cancel": (
                "如何取消{goods}订单", "{goods}拍错了，能撤掉订单吗", "还没发的{goods}可以撤单吗",
                "{goods}这单帮我关掉", "买{goods}点快了，如何作废这一单",
            ),
            "installment": (
                "{goods}分{term}付款可以吗", "买{goods}能不能{term}分期", "{goods}的钱我想{term}慢慢给",
                "{goods}支持{term}分期不", "用{term}的期数买{goods}",
            ),
            "warranty": (
                "{goods}质保多久", "{goods}售后保障期是几年", "{goods}坏了你们管多长时间", "买{goods}保修到什么时候",
                "{goods}的三包期限",
            ),
            "review": (
                "{goods}的评价如何删除", "不想留着对{goods}的评论", "{goods}写过的评语能撤下来吗",
                "帮我把{goods}的点评去掉", "{goods}差评发错了想删",
            ),
            "gift": (
                "买{goods}送赠品吗", "{goods}有没有附带的小礼物", "买{goods}附赠什么东西",
                "下单{goods}能得到什么礼品",
            ),
            "coupon_use": (
                "{coupon}如何使用", "下单时{coupon}在哪里抵扣", "我有{coupon}，付款怎么减钱", "{coupon}要怎么花掉",
                "结账的时候如何用上{coupon}",
            ),
            "coupon_get": (
                "{coupon}如何领取", "在哪里能拿到{coupon}", "怎么才能获得{coupon}", "想要{coupon}，有什么渠道",
                "{coupon}从哪儿领",
            ),
            "coupon_exp": (
                "{coupon}过期了还能补吗", "失效的{coupon}可以恢复不", "{coupon}忘了用，已经到期",
                "{coupon}时间过了怎么办", "我的{coupon}作废了，能延长吗",
            ),
            "coupon_fail": (
                "{coupon}为什么用不了", "{coupon}点了没反应", "付款时{coupon}是灰的", "{coupon}不能抵，啥情况",
                "提示{coupon}不符合条件",
            ),
            "coupon_back": (
                "退货后{coupon}会还给我吗", "取消订单，{coupon}退不退", "退单了{coupon}没返回来",
                "{coupon}用了又退款，还有吗",
            ),
            "restock": (
                "{goods}什么时候补货", "卖完的{goods}会再上架不", "{goods}显示缺货，要等多久",
                "{goods}断货了，几号能买",
            ),
        },
    ),
    "mobile": Domain(
        brands=CARRIERS,
        slots={
            "pack": (
                "流量包/上网套餐 国际漫游/出国通话 彩铃/来电音乐 短信包/信息套餐 来电显示/号码展示 "
                "呼叫转移/电话转接 亲情号/家庭互打"
            ),
            "num": "话费/电话费 流量/上网数据 通话时长/语音分钟数 短信/信息条数",
        },
        intents={
            "on": (
                "如何开通{pack}", "想办一个{pack}", "{pack}怎么订购", "给我的号加上{pack}",
                "{pack}要发什么短信才能启用", "我需要用{pack}，在哪里弄",
            ),
            "off": (
                "如何取消{pack}", "想退掉{pack}", "{pack}怎么退订", "把我号上的{pack}去掉",
                "{pack}要发什么短信才能停用", "我不用{pack}了，在哪里关",
            ),
            "fee": ("{pack}一个月多少钱", "{pack}资费标准", "开{pack}贵不贵", "{pack}每月扣几块", "用{pack}怎么收费"),
            "nowant": (
                "没订过{pack}却扣了我的钱", "为什么莫名多了{pack}费用", "谁给我开的{pack}",
                "{pack}不是我办的，要求退费", "账单里冒出{pack}，我根本没同意",
            ),
            "fail": (
                "{pack}办了为什么不生效", "开通{pack}之后还是用不了", "{pack}没起作用", "{pack}已经订好了，咋没反应",
                "明明有{pack}却不管用",
            ),
            "left": ("我的{num}还剩多少", "查{num}余量", "这个月{num}用了几成", "{num}还够不够", "如何看剩下的{num}"),
            "gone": (
                "{num}为什么掉得这么快", "什么都没干{num}就没了", "{num}消耗不正常", "{num}咋一天就用光",
                "我怀疑{num}被偷跑了",
            ),
            "give": (
                "能不能把{num}转给{who}", "{num}送一些给{who}", "给{who}转{num}的方法", "{who}缺{num}，我可以分他吗",
                "如何和{who}共享{num}",
            ),
            "topup": (
                "如何给{who}充话费", "替{who}交电话费", "{who}的手机欠费了，我来缴", "帮{who}的号码充点钱",
                "{who}停机，如何代缴",
            ),
            "topup_wrong": (
                "给{who}充话费充错号了", "{who}的话费充到别人号上", "替{who}交电话费，号码输错能退吗",
                "充值填错，{who}没收到钱", "本想给{who}缴费，结果打到陌生号",
            ),
            "stop": (
                "如何临时停机", "出国一阵子，号码想先停用", "暂时不用这个号，停一下咋办", "手机号报停怎么弄",
                "办理停机保号的流程",
            ),
            "resume": (
                "停机的号如何恢复", "号码想重新启用", "之前报停的手机卡现在要用", "复机怎么办理",
                "怎么把停掉的号码开回来",
            ),
            "port": (
                "如何携号转网", "换运营商不换号码", "想带着原来的号到别家", "转网要满足什么条件",
                "保留号码转到另一家公司行吗",
            ),
            "simlost": (
                "手机卡丢了如何补", "电话卡掉了，补一张去哪里", "SIM卡遗失补办流程", "我的卡没了，原号还能要吗",
            ),
            "plan": ("套餐想换成便宜的", "如何降低每月资费档次", "月租太贵，改低档可以吗", "有没有更省钱的套餐能换"),
            "plan_up": (
                "套餐想换成更大的", "如何升级每月资费档次", "月租不够用，改高档可以吗", "有没有内容更多的套餐能换",
            ),
        },
    ),
    "broadband": Domain(
        brands=CARRIERS,
        slots={
            "netp": "宽带/家里的网 路由器/无线发射器 光猫/光纤调制器 监控/摄像头",
            "net": "宽带/家里的网 电视盒子/机顶盒 路由器/无线发射器 光猫/光纤调制器 固话/座机 监控/摄像头",
        },
        intents={
            "install": (
                "{net}{day}能装吗", "预约{day}上门安装{net}", "{day}想把{net}装好", "师傅{day}来弄{net}行不行",
                "{net}安装时间定在{day}",
            ),
            "fix": (
                "{net}{day}能修好吗", "预约{day}上门维修{net}", "{day}派人来看看{net}的毛病",
                "{net}坏了，师傅{day}有空没", "{net}报修，想约{day}",
            ),
            "move": (
                "搬家了{net}如何迁", "{net}挪到新地址", "换房子，{net}怎么跟着走", "{net}移机如何申请",
                "把{net}改装到另一个小区",
            ),
            "down": ("{net}连不上怎么办", "{net}用不了了", "{net}一直亮红灯", "{net}没信号，咋弄", "{net}断了半天"),
            "slow": (
                "{netp}为什么老卡", "{netp}速度慢得要命", "{netp}时好时坏", "{netp}不稳定，老是掉",
                "{netp}反应迟钝如何解决",
            ),
            "cancel": (
                "{net}不用了如何拆", "想退{net}", "注销{net}要去营业厅吗", "{net}到期不续，怎么终止", "停掉{net}服务",
            ),
            "deposit": (
                "{net}的押金什么时候退", "退还{net}设备，押的钱给我", "{net}当初交的保证金能拿回来吗",
                "{net}押金还返不返",
            ),
            "renewal": (
                "{net}到期如何续费", "{net}续费的方法", "{net}快到日子了，接着交", "给{net}再交一期费用",
                "想继续用{net}，在哪里缴",
            ),
            "setpwd": (
                "{netp}的密码如何改", "给{netp}换个口令", "{netp}想重新设个密码", "怕别人蹭，{netp}密码变一下",
            ),
            "reset": ("{netp}如何恢复出厂", "{netp}重置按哪个键", "想把{netp}清空重来", "{netp}初始化的方法"),
        },
    ),
    "hotel": Domain(
        brands=(
            "望湖酒店/望湖 半山宾馆/半山 听雨客栈/听雨 金桂饭店/金桂 临江大酒店/临江 竹里旅舍/竹里 "
            "星河度假村/星河 栖云山居/栖云 老码头旅馆/老码头 朝晖商务酒店/朝晖 梧桐里酒店/梧桐里 雪国宾馆/雪国 "
            "沙洲客栈/沙洲 花间堂小院/花间 六月旅馆/六月 鹿鸣庄园/鹿鸣"
        ),
        slots={
            "spot": "餐厅/吃饭的地方 泳池/游泳的地方 健身房/运动室 洗衣房/洗衣服的地方 儿童乐园/小孩玩的地方",
            "place": "餐厅/吃饭的地方 泳池/游泳的地方 健身房/运动室 停车场/泊车处 前台/大堂接待处 客房/睡的房间",
            "room": "大床房/单床间 双床房/标准间 家庭房/亲子间 套房/带客厅的房 湖景房/水景间 民宿/公寓",
            "svc": "早餐/早饭 停车/泊车 接机/机场接送 加床/多放一张床 游泳池/泳池 洗衣/干洗 健身房/运动室",
        },
        intents={
            "book": (
                "{city}{day}有{room}吗", "想订{day}{city}的{room}", "{day}到{city}，要一间{room}",
                "{city}的{room}，{day}还能订不", "帮我预订{city}{room}，{day}入住",
            ),
            "price": (
                "{day}的{room}多少钱一晚", "{room}{day}什么价", "住{room}，{day}收费咋样", "查{day}{room}的房价",
                "{day}订{room}贵吗",
            ),
            "cancel": (
                "订好的{room}如何取消", "{room}不住了能退吗", "行程变了，{room}要退掉", "撤销{room}预订",
                "{room}我去不了，房费还吗",
            ),
            "cancel_fee": (
                "取消{room}要扣钱吗", "退{room}收不收违约金", "{room}临时不住，损失多少", "{room}免费取消截止到几点",
                "不去了，{room}的钱能全退不",
            ),
            "change": (
                "{room}想改到{day}", "{room}入住日期换成{day}", "订单里的{room}推到{day}行吗",
                "能不能{day}再住{room}", "{room}延到{day}",
            ),
            "early": (
                "{room}可以早点入住吗", "上午就到，{room}能进不", "{room}能不能提早办入住", "不到时间想先进{room}",
            ),
            "late": ("{room}可以晚点退吗", "{room}想推迟离店", "{room}延迟退房行吗", "下午才走，{room}能多待会儿不"),
            "extend": ("{room}想多住一晚", "如何续住{room}", "{room}再加一天", "明天不走了，{room}接着住"),
            "svc_have": (
                "你们有{svc}吗", "酒店提供{svc}不", "入住带不带{svc}", "{svc}这项服务有没有",
                "宾馆里有没有{svc}这一项",
            ),
            "svc_fee": (
                "{svc}收费吗", "{svc}另外要钱不", "房费里含{svc}没有", "{svc}多少钱一次", "用{svc}是免费的还是付费",
            ),
            "svc_time": (
                "{spot}几点开放", "{spot}的时间段", "{spot}从几点到几点", "什么时候可以去{spot}", "{spot}营业到多晚",
            ),
            "lostitem": (
                "东西落在{place}了", "我把包忘在{place}了，帮忙找找", "{place}那里捡到我的物品没",
                "离店后发现少了东西，应该在{place}", "{place}有没有失物",
            ),
            "complain": (
                "{svc}太差了，要投诉", "对{svc}很不满意，找谁反映", "{svc}体验糟糕，你们管不管", "举报{svc}服务不好",
            ),
        },
    ),
    "travel": Domain(
        brands=(
            "云帆旅行网/云帆 脚印出游/脚印 蒲公英旅行/蒲公英 走走网/走走 候鸟票务/候鸟 远方商旅/远方 "
            "背包客之家/背包客 一程出行/一程 海风旅游/海风 驼铃票务/驼铃 白日梦旅行/白日梦 指南针出游/指南针 "
            "帆布鞋之旅/帆布鞋 南飞票务/南飞 山海行旅/山海 热气球旅游/热气球"
        ),
        slots={
            "trip": "机票/航班 火车票/铁路票 汽车票/大巴 船票/轮渡",
            "ticket": "机票/航班 火车票/铁路票 汽车票/大巴 船票/轮渡 景点门票/景区入场券",
        },
        intents={
            "buy": (
                "{day}去{city}的{trip}还有吗", "想买{day}到{city}的{trip}", "{trip}，{day}，目的地{city}，有余票没",
                "{city}的{trip}，{day}能订不", "帮忙抢{day}前往{city}的{trip}",
            ),
            "price": (
                "到{city}的{trip}多少钱", "{city}{trip}什么价位", "去{city}，{trip}贵不贵",
                "查一下{city}的{trip}票价",
            ),
            "refund": (
                "{ticket}如何退", "不去了，{ticket}能不能退钱", "{ticket}退订流程", "买好的{ticket}想退掉",
                "行程取消，{ticket}的款还我",
            ),
            "refund_fee": (
                "退{ticket}扣多少手续费", "{ticket}退订要损失几成", "{ticket}退了能拿回全款吗",
                "出发前退{ticket}，收费比例是啥",
            ),
            "change": (
                "{ticket}改签到{day}", "{ticket}换成{day}的", "{day}走，{ticket}能变更吗",
                "原来的{ticket}不合适，想改{day}", "如何把{ticket}日期调到{day}",
            ),
            "change_fee": (
                "{ticket}改签收费吗", "改{ticket}的日子要补钱不", "换一班，{ticket}差价怎么算",
                "{ticket}变更手续费多少",
            ),
            "name": (
                "{ticket}名字写错了", "{ticket}上的姓名如何更正", "买{ticket}身份证号填错",
                "{ticket}乘客信息有误，能改不",
            ),
            "forother": (
                "如何给{who}买{ticket}", "替{who}订{ticket}要什么资料", "{who}的{ticket}我来付",
                "想帮{who}弄张{ticket}", "{who}没有账号，代买{ticket}行吗",
            ),
            "seat": (
                "{trip}能选{seat}吗", "买{trip}想要{seat}", "{trip}给我安排{seat}", "{seat}的{trip}如何挑",
                "如何订{seat}{trip}",
            ),
            "delay": (
                "{trip}晚点了怎么办", "{trip}延误有赔偿吗", "我这趟{trip}迟迟不出发", "{trip}耽误几小时，谁负责",
            ),
            "pickup": ("{ticket}在哪里取", "{ticket}的纸质票如何换", "网上买的{ticket}如何拿到", "拿什么领{ticket}"),
            "luggage": (
                "{trip}可以带多少行李", "坐{trip}这趟，箱子限重几公斤", "{trip}免费托运的重量上限",
                "带着大箱子坐{trip}，多重算超",
            ),
            "invoice": (
                "{ticket}的报销凭证", "{ticket}如何开发票", "出差用的{ticket}，票据怎么拿", "{ticket}行程单去哪里打",
            ),
            "status": ("{ticket}出票了吗", "付了款{ticket}没出来", "{ticket}一直显示处理中", "{ticket}订成功没有"),
        },
    ),
    "insurance": Domain(
        brands=(
            "磐石保险/磐石 常青人寿/常青 安渡财险/安渡 暖阳保险/暖阳 大树人寿/大树 护城河保险/护城河 "
            "百福保险/百福 伞下财险/伞下 康宁桥人寿/康宁桥 灯塔保险/灯塔 安澜保险/安澜 松鹤人寿/松鹤 "
            "铁壁财险/铁壁 恒河沙保险/恒河沙 避风港人寿/避风港 四叶草保险/四叶草"
        ),
        slots={
            "life": "医疗险/看病保险 意外险/人身意外保障 重疾险/大病保险 寿险/身故保障 旅行险/出游保险",
            "ins": (
                "车险/汽车保险 医疗险/看病保险 意外险/人身意外保障 重疾险/大病保险 寿险/身故保障 旅行险/出游保险 "
                "家财险/房屋保险"
            ),
        },
        intents={
            "claim": (
                "{ins}如何理赔", "出事了，{ins}怎么报案", "用{ins}报销要走什么流程", "{ins}申请赔付的步骤",
                "我要{ins}赔钱，第一步做啥",
            ),
            "claim_doc": (
                "{ins}理赔要什么材料", "{ins}赔付得交哪些单据", "报{ins}需要准备的资料",
                "申请{ins}赔款，证明文件有哪些",
            ),
            "claim_when": (
                "{ins}的赔款几天到", "{ins}理赔审核多久", "{ins}报了案，钱啥时候下来", "{ins}赔付怎么还没到账",
            ),
            "claim_no": ("{ins}为什么不赔", "{ins}拒赔的理由是什么", "{ins}理赔没通过", "{ins}凭什么不给我钱"),
            "buy": (
                "想给{who}买{life}", "{who}能不能投{life}", "{life}适合{who}吗", "给{who}上一份{life}，如何办",
                "{who}投保{life}的要求",
            ),
            "surrender": (
                "{ins}如何退保", "不想要{ins}了，怎么退掉", "{ins}交了几年想退", "终止{ins}合同", "{ins}解约的手续",
            ),
            "renew": ("{ins}如何续保", "{ins}到期接着买", "{ins}明年还想要", "{ins}快到期，续交去哪里"),
            "lapse": (
                "{ins}忘了续费断了怎么办", "{ins}停保还能恢复吗", "{ins}没按时交钱失效了",
                "如何让断缴的{ins}重新有效",
            ),
            "cover": ("{ins}保什么", "{ins}的保障范围", "什么情况{ins}能赔", "{ins}里面包括哪些项目"),
            "nocover": ("{ins}哪些不保", "{ins}的免责条款", "什么情况{ins}是不赔的", "{ins}除外责任有啥"),
            "fee": ("{ins}一年多少钱", "买{ins}保费多高", "{ins}每年交几百", "{ins}的价格"),
            "benef": (
                "{life}受益人改成{who}", "把{life}的受益方换为{who}", "{life}想指定{who}领钱",
                "{who}做{life}受益人如何变更",
            ),
            "policy": (
                "{ins}保单在哪里看", "{ins}电子合同如何下载", "找不着{ins}的单子了", "想要一份{ins}的纸质保单",
            ),
            "wait": ("{ins}什么时候生效", "{ins}等待期几天", "买了{ins}当天就有保障吗", "{ins}从哪天起算"),
        },
    ),
    "medical": Domain(
        brands=(
            "青松医院/青松 仁爱路医院/仁爱路 杏林堂医院/杏林堂 市七院/第七人民医院 东郊医院/东郊 滨河医院/滨河 "
            "百草堂医院/百草堂 向阳医院/向阳 省三院/第三人民医院 桃源医院/桃源 安和医院/安和 西城医院/西城 "
            "南湖医院/南湖 长春藤医院/长春藤 市二院/第二人民医院 北岭医院/北岭"
        ),
        slots={
            "dept": (
                "儿科/小儿门诊 口腔科/牙科 眼科/眼睛门诊 皮肤科/皮肤病门诊 骨科/正骨门诊 耳鼻喉科/五官科 "
                "中医科/国医门诊 心内科/心脏门诊"
            ),
            "check": "体检/健康检查 核磁/磁共振 血常规/验血 B超/彩超 胃镜/胃部内窥镜 CT/断层扫描",
        },
        intents={
            "reg": (
                "{dept}{day}有号吗", "想挂{day}的{dept}", "预约{day}{dept}", "{day}看{dept}，还能约不",
                "{dept}{day}的号放完没",
            ),
            "reg_who": (
                "如何给{who}挂{dept}", "替{who}约个{dept}", "{who}要看{dept}，我来挂号行吗", "帮{who}预约{dept}的号",
            ),
            "unreg": (
                "{dept}的号如何退", "挂了{dept}去不了", "取消{dept}预约", "{dept}的挂号费能退吗",
                "{dept}约好的不看了",
            ),
            "chg": (
                "{dept}的号改到{day}", "{dept}预约换成{day}", "{day}再去{dept}，能改期吗", "挂的{dept}想挪到{day}",
            ),
            "expert": (
                "{dept}专家什么时候坐诊", "{dept}主任哪天出门诊", "{dept}有名的大夫几号在", "查{dept}权威医生的班表",
            ),
            "where": ("{dept}在几楼", "{dept}怎么走", "找不到{dept}在哪里", "{dept}的位置"),
            "night": ("{dept}晚上看不看", "{dept}有夜间急诊吗", "半夜{dept}开着没", "{dept}夜里能看病吗"),
            "fee": ("{dept}挂号费多少", "看{dept}要花几块钱挂号", "{dept}的号贵不贵", "约{dept}大夫，门诊费几块"),
            "check_fee": ("做{check}多少钱", "{check}的费用", "做个{check}贵吗", "去{check}要带几百块"),
            "check_ins": ("{check}医保能报吗", "{check}可以走社保不", "{check}报销比例", "{check}要自费吗"),
            "check_prep": (
                "{check}前要空腹吗", "{check}之前需要注意什么", "去{check}，头一天要做什么准备",
                "{check}有哪些准备事项",
            ),
            "check_report": (
                "{check}结果多久出", "{check}报告在哪里拿", "{check}做完几天看到单子", "如何查{check}的结果",
            ),
            "check_book": ("{check}约在{day}", "{day}可以做{check}吗", "预约{day}去{check}", "{check}{day}有空位没"),
            "check_cancel": (
                "{check}不做了如何取消", "约的{check}想退掉", "{check}去不成，撤销预约", "交了钱的{check}能退款吗",
            ),
        },
    ),
    "course": Domain(
        brands=(
            "小鹿学堂/小鹿 蜗牛慢学/蜗牛 橡皮树学院/橡皮树 格子间教室/格子间 向上体能馆/向上 树洞工作坊/树洞 "
            "一米阳光学校/一米阳光 铁人俱乐部/铁人 纸飞机培训/纸飞机 棉花糖教育/棉花糖 迷迭香学社/迷迭香 "
            "发条橙课堂/发条橙 青椒学校/青椒 大力士健身/大力士 铅笔盒培训/铅笔盒 云朵艺术馆/云朵"
        ),
        slots={
            "course": (
                "瑜伽课/瑜珈班 游泳课/学游泳的班 英语课/外语班 钢琴课/学琴班 私教课/一对一训练 画画课/美术班 "
                "编程课/写代码的班 舞蹈课/跳舞班"
            ),
        },
        intents={
            "try": (
                "{course}可以试听吗", "{course}先体验一节", "想试上{course}", "{course}有没有免费体验",
                "报名之前，{course}能感受一次不",
            ),
            "fee": ("{course}多少钱", "{course}学费怎么收", "报{course}要花几千", "{course}价格表"),
            "fee_term": (
                "{course}上{term}多少钱", "{term}的{course}学费", "报{term}{course}什么价",
                "{course}，{term}一共收几千",
            ),
            "refund": (
                "{course}如何退费", "{course}不想上了，钱退吗", "没上完的{course}，剩的钱怎么退", "{course}退班流程",
            ),
            "pause": (
                "{course}能暂停{term}吗", "{term}不能来，{course}先停着", "{course}请假{term}",
                "把{course}冻结{term}",
            ),
            "extend": (
                "{course}有效期想延{term}", "{course}能不能延长{term}", "{course}没上完，再宽{term}",
                "给{course}的期限加{term}",
            ),
            "transfer": (
                "{course}转给{who}行吗", "把{course}剩下的课让给{who}", "{who}想接我的{course}",
                "{course}可以换{who}来上不",
            ),
            "makeup": (
                "{course}缺课如何补", "落下的{course}能补吗", "{course}请了假，后面再上行不", "错过一节{course}",
            ),
            "book": ("{course}约{day}", "{day}的{course}还有位吗", "想{day}上{course}", "预约{day}{course}"),
            "cancel": (
                "{course}取消{day}的预约", "{day}不去{course}了", "{course}约了{day}，想撤掉",
                "{day}那节{course}退掉",
            ),
            "teacher": (
                "{course}的老师能换吗", "不喜欢{course}教练，换一位", "{course}想要别的老师", "更换{course}讲师",
            ),
            "level": (
                "{course}零基础能学吗", "没学过，{course}跟得上不", "{course}新手适合哪个班", "小白报{course}行不行",
            ),
            "age": (
                "{who}能学{course}吗", "{course}对{who}来说难不难", "{course}收不收{who}", "给{who}报{course}合适不",
            ),
            "cert": (
                "{course}有证书吗", "学完{course}发不发证", "上了{course}，能拿到什么文凭", "{course}结业给什么证明",
            ),
        },
    ),
    "food": Domain(
        brands=(
            "老灶台/灶台家 阿婆小厨/阿婆家 四季小馆/四季 巷子深处/巷深 麦田厨房/麦田 胖掌柜/胖老板 蓝莓屋/蓝莓家 "
            "大碗公/大碗 竹筷食堂/竹筷 街角小站/街角 山下小院/山下 咕噜厨房/咕噜 半勺糖/半勺 铁锅王/铁锅 "
            "江湖味道/江湖味 豆子饭堂/豆子"
        ),
        slots={
            "meal": "外卖/餐食 奶茶/茶饮 蛋糕/甜点 披萨/比萨饼 火锅/涮锅 盒饭/便当 水果/鲜果 烧烤/烤串",
            "amt": "配送费/运费 打包费/餐盒钱 起送价/最低下单额 会员费/月卡钱",
        },
        intents={
            "late": (
                "{meal}怎么还没到", "{meal}超时了", "等了一个钟头{meal}没影", "{meal}送得太慢，帮我催",
                "骑手的{meal}送哪去了",
            ),
            "wrong": ("{meal}送错了", "拿到的{meal}不是我点的", "{meal}给成别人的了", "{meal}搞混了怎么办"),
            "missing": ("{meal}少送了一份", "{meal}缺东西", "{meal}没给全", "打开{meal}发现少一样"),
            "bad": ("{meal}有异味像坏了", "{meal}变质了如何赔", "{meal}不新鲜，要投诉", "{meal}馊了，还让人吃吗"),
            "spill": ("{meal}洒了怎么赔", "{meal}漏得到处都是", "{meal}摔烂了", "送来的{meal}翻了"),
            "refund": ("{meal}可以退款吗", "{meal}的钱如何拿回来", "不要{meal}了，退钱", "{meal}申请返还货款"),
            "cancel": (
                "{meal}点错了如何取消", "{meal}商家没接单，我撤掉行吗", "刚下的{meal}，单子能撤销吗",
                "把{meal}那单关了",
            ),
            "addr": ("{meal}地址填错了", "{meal}送到另一个地方行吗", "{meal}想换个收货位置", "改{meal}的配送地点"),
            "note": (
                "{meal}忘写备注了", "{meal}不要辣，能跟店家说吗", "给{meal}加个口味要求",
                "{meal}下单后还能补充说明不",
            ),
            "book": (
                "{meal}预订{day}", "{day}想吃{meal}，能提前下单吗", "{meal}约在{day}送", "{day}的{meal}可以先订不",
            ),
            "amt_high": ("{amt}为什么这么贵", "{amt}涨了吗", "{amt}收得不合理", "{amt}太高了，能便宜点不"),
            "amt_free": ("{amt}怎么才能免", "有没有办法不付{amt}", "如何减掉{amt}", "{amt}满多少可以不收"),
            "amt_back": ("{amt}多收了能退吗", "把{amt}退给我", "重复扣了{amt}，还我", "{amt}收错了，返还"),
            "tip": (
                "如何给送{meal}的小哥打赏", "想谢谢送{meal}的骑手，给点小费", "{meal}配送员很好，奖励他一下",
                "想给{meal}骑手发个小红包",
            ),
            "shop_in": (
                "我家店卖{meal}，如何入驻", "{meal}商家如何加盟", "开{meal}店想上平台", "卖{meal}的铺子注册流程",
            ),
        },
    ),
    "ride": Domain(
        brands=(
            "飞燕出行/飞燕 搭把手/搭搭 树蛙出行/树蛙 顺路走/顺路 小蚂蚁用车/小蚂蚁 绿洲出行/绿洲 "
            "千里马约车/千里马 滚滚出行/滚滚 风火轮出行/风火轮 快马加鞭/加鞭 一路顺出行/一路顺 小石头用车/小石头 "
            "橘猫出行/橘猫 白鸽约车/白鸽"
        ),
        slots={
            "bike": "共享单车/自行车 电动车/电瓶车 充电宝/移动电源 租来的车/自驾车 雨伞柜的伞/共享伞",
            "car": "快车/普通网约车 顺风车/拼车 代驾/替人开车的服务 出租车/的士 商务车/七座大车",
        },
        intents={
            "lost_obj": (
                "{obj}落在{car}上了", "{car}坐完发现{obj}没了", "找回忘在{car}的{obj}",
                "下{car}的时候丢了{obj}，如何联系司机",
            ),
            "price": ("{car}怎么算钱", "{car}收费标准", "{car}起步价几块", "坐{car}多少钱一公里"),
            "high": ("{car}费用不对，收多了", "{car}为什么扣我这么多", "{car}多收了钱要退", "{car}计价有问题"),
            "cancel": ("{car}取消要扣钱吗", "叫了{car}不坐，会罚款不", "退掉{car}单收费不", "{car}取消费如何收"),
            "book": ("{car}约{day}", "{day}要用{car}，如何提前叫", "预订{day}的{car}", "{car}，{day}能安排吗"),
            "route": ("{car}绕路了", "{car}师傅故意走远道", "{car}没按导航走", "举报{car}多跑冤枉路"),
            "attitude": (
                "{car}司机态度差", "{car}师傅骂人，投诉", "{car}服务恶劣，找谁反映", "遇到凶巴巴的{car}司机",
            ),
            "safe": ("{car}安全吗", "女生晚上坐{car}放心不", "坐{car}会不会出事", "{car}靠不靠谱，怕有危险"),
            "other": (
                "给{who}叫{car}", "替{who}打{car}如何操作", "{who}不会用手机，帮忙约{car}", "{car}可以代{who}下单吗",
            ),
            "invoice": ("{car}如何开票", "{car}费用要报销", "{car}行程的发票", "{car}电子票据在哪里下"),
            "join": ("如何当{car}司机", "想加入{car}接单", "{car}车主如何注册", "跑{car}怎么报名"),
            "deposit": ("{bike}押金如何退", "{bike}保证金没返", "{bike}当初交的押钱还给我", "拿回{bike}的押款"),
            "pay": ("{bike}付不了款", "{bike}费用支付失败", "{bike}结账一直转圈", "{bike}的账付不出去"),
            "bike_return": (
                "{bike}还了怎么还在计费", "{bike}已经归还，费用不停", "没用{bike}了，钱还在走",
                "{bike}交回去了订单却不结束",
            ),
            "bike_where": ("附近哪里有{bike}", "{bike}在什么地方能借到", "想用{bike}，最近的点", "周围找不到{bike}"),
            "bike_broken": ("{bike}是坏的", "{bike}用到一半出故障", "{bike}有毛病，要报修", "扫了{bike}才发现没法用"),
        },
    ),
    "account": Domain(
        brands=(
            "星桥网/星桥 知了社区/知了 小满笔记/小满 豆荚视频/豆荚 鹦鹉听书/鹦鹉 萤火论坛/萤火 布谷邮箱/布谷 "
            "海獭游戏/海獭 积木云盘/积木 柚子直播/柚子 瓢虫短视频/瓢虫 水杉阅读/水杉 小黑板课堂/小黑板 "
            "橙影相册/橙影 咸鱼干论坛/咸鱼干 雪球糖音乐/雪球糖"
        ),
        slots={
            "code": "验证码/校验码 二维码/扫一扫图 激活邮件/确认信 动态令牌/一次性口令",
            "id": "账号/账户 会员/VIP身份 店铺/网店 主页/个人空间",
            "acc": (
                "账号/账户 会员/VIP身份 实名认证/身份核验 微信绑定/微信关联 手机绑定/号码关联 人脸登录/刷脸登入 "
                "指纹锁/指纹登入"
            ),
            "pw": "登录密码/登入口令 支付密码/付款口令 手势密码/图案锁 锁屏密码/开机口令 家长密码/防沉迷口令",
        },
        intents={
            "forget": ("{pw}忘了怎么办", "找回{pw}", "想不起{pw}了", "{pw}如何重置"),
            "change": ("如何修改{pw}", "{pw}想换一个", "在哪里变更{pw}", "把{pw}改成别的"),
            "noget": ("收不到{code}", "{code}为什么一直不来", "{code}半天没显示", "{code}出不来"),
            "wrong": ("{pw}总提示错误", "{pw}输了几次都不对", "{pw}明明没错却不通过", "{pw}验证失败"),
            "leak": ("{pw}被别人知道了", "{pw}泄露怎么补救", "{pw}可能被盗", "担心{pw}不安全了"),
            "lock": ("{pw}输错太多被锁", "{pw}锁定如何解开", "{pw}错几次后不让用了", "解除{pw}的锁"),
            "acc_on": ("如何开通{acc}", "{acc}在哪里弄", "想办{acc}", "{acc}怎么启用", "我要设置{acc}"),
            "acc_off": ("如何注销{acc}", "{acc}在哪里去掉", "想取消{acc}", "{acc}怎么停用", "我要解除{acc}"),
            "acc_fail": ("{acc}失败了", "{acc}为什么不成功", "{acc}一直弄不好", "{acc}过不去怎么办"),
            "acc_other": ("{id}能给{who}用吗", "{id}换成{who}", "把{id}转给{who}", "{id}借{who}行不行"),
            "acc_way": ("通过{way}可以办{acc}吗", "{acc}走{way}行不行", "{way}能弄{acc}不", "在{way}这边处理{acc}"),
            "acc_stolen": ("{id}被盗了怎么办", "别人动了我的{id}", "{id}有异常，不是我本人", "怀疑{id}让人盗用"),
        },
    ),
    "home": Domain(
        brands=(
            "海星牌/海星 北极熊牌/北极熊 白鹭牌/白鹭 极光牌/极光 铁锚牌/铁锚 双叶牌/双叶 大熊座/熊座 晴天牌/晴天 "
            "木马牌/木马 珊瑚牌/珊瑚 青花牌/青花 飞轮牌/飞轮 雪豹牌/雪豹 老船长牌/老船长 向日葵牌/向日葵 "
            "银狐牌/银狐"
        ),
        slots={
            "inst": (
                "空调/冷气机 电视/彩电 洗衣机/洗衣服的机器 热水器/烧水洗澡的机器 油烟机/抽烟机 净水器/滤水机 "
                "洗碗机/刷盘子的机器"
            ),
            "wash": "冰箱/电冰柜 空调/冷气机 洗衣机/洗衣服的机器 热水器/烧水洗澡的机器 油烟机/抽烟机 净水器/滤水机",
            "wet": (
                "冰箱/电冰柜 空调/冷气机 洗衣机/洗衣服的机器 热水器/烧水洗澡的机器 洗碗机/刷盘子的机器 "
                "净水器/滤水机"
            ),
            "app": (
                "冰箱/电冰柜 空调/冷气机 洗衣机/洗衣服的机器 电视/彩电 热水器/烧水洗澡的机器 油烟机/抽烟机 "
                "扫地机器人/自动扫地的机器 微波炉/热饭的炉子"
            ),
        },
        intents={
            "noise": ("{app}声音大", "{app}嗡嗡响正常吗", "{app}吵得睡不着", "{app}有异响"),
            "leak": ("{wet}漏水", "{wet}底下一滩水", "{wet}一直滴水怎么办", "{wet}往外渗水"),
            "dead": ("{app}不通电", "{app}开不了机", "{app}按了没反应", "{app}启动不起来"),
            "smell": ("{app}有怪味", "{app}闻着臭", "{app}味道难闻如何去掉", "{app}散发异味"),
            "clean": ("{wash}如何清洗", "{wash}脏了自己能洗吗", "{wash}里面怎么弄干净", "保养{wash}的方法"),
            "clean_day": (
                "预约{day}清洗{wash}", "{wash}{day}上门洗", "{day}有人来清洁{wash}吗", "{day}想给{wash}做保养",
            ),
            "fix_day": ("{app}{day}上门修", "预约{day}维修{app}", "{day}师傅来看{app}行吗", "{app}坏了，{day}派人"),
            "fix_fee": ("修{app}多少钱", "{app}上门维修收费", "{app}维修价格表", "{app}坏了修一下贵不贵"),
            "install_day": (
                "{inst}{day}装", "预约{day}安装{inst}", "{day}师傅来装{inst}行吗", "{inst}到货了，{day}安上",
            ),
            "install_fee": ("装{inst}多少钱", "{inst}上门安装收费", "{inst}安装要额外给钱吗", "{inst}装机费贵不贵"),
            "warranty": ("{app}保修多久", "{app}质保几年", "{app}坏了几年内免费修", "{app}的售后期限"),
            "power": ("{app}费电吗", "{app}一天几度电", "{app}耗电量大不大", "{app}省不省电"),
            "part": (
                "{app}配件去哪里买", "想买{app}的零件", "{app}原装配件从什么渠道弄", "缺{app}的零部件，如何购买",
            ),
            "trade": ("旧{app}能折价吗", "{app}以旧换新", "回收{app}给多少", "老{app}处理掉，抵新机"),
            "manual": ("{app}不会用，教程在哪里", "{app}如何操作", "{app}按键看不懂，教教我", "{app}的使用方法"),
        },
    ),
    "property": Domain(
        brands=(
            "枫林苑/枫林小区 碧水湾/碧水小区 锦绣里/锦绣小区 翠竹园/翠竹小区 朝阳花园/朝阳小区 银杏居/银杏小区 "
            "玫瑰庄园/玫瑰小区 听涛阁/听涛小区 紫藤苑/紫藤小区 麓山府/麓山小区 桂香园/桂香小区 望江台/望江小区 "
            "青枫里/青枫小区 荷塘月色/荷塘小区 金水湾/金水小区 榕树家园/榕树小区"
        ),
        slots={
            "util": "水费/用水钱 电费/用电钱 燃气费/煤气钱 暖气费/取暖钱",
            "fee": "物业费/管理费 水费/用水钱 电费/用电钱 燃气费/煤气钱 停车费/车位钱 暖气费/取暖钱",
            "fac": (
                "电梯/升降机 门禁/刷卡门 路灯/小区照明 水管/管道 车库/地下停车场 垃圾桶/垃圾箱 "
                "监控探头/小区摄像头"
            ),
        },
        intents={
            "pay": ("{fee}如何交", "{fee}在哪里缴", "想付{fee}", "{fee}交钱的方式"),
            "pay_way": ("{fee}通过{way}能交吗", "用{way}缴{fee}", "{fee}走{way}行不行", "{way}可以付{fee}不"),
            "pay_term": ("{fee}一次交{term}", "想预存{term}的{fee}", "{fee}先付{term}行吗", "{term}的{fee}一共多少"),
            "high": ("{fee}为什么这么多", "{fee}比上月贵了", "{fee}算错了吧", "{fee}突然涨了"),
            "owe": ("{fee}欠了怎么办", "{fee}忘交会罚吗", "{fee}拖着没给，有滞纳金不", "{fee}逾期"),
            "stop": (
                "{util}欠着被停了，如何恢复", "{util}没交断掉了，怎么重新开通", "{util}已经补上，停掉的几时给通",
                "之前{util}没给被掐了，缴清后多久能用",
            ),
            "refund": ("{fee}多交了能退吗", "{fee}交重了", "退还{fee}", "多扣的{fee}还我"),
            "invoice": ("{fee}如何开票", "{fee}要收据", "{fee}的票据去哪拿", "{fee}能不能开发票"),
            "fix": ("{fac}坏了找谁", "{fac}报修", "{fac}出故障，来人看看", "{fac}没法用了"),
            "fix_day": ("{fac}{day}能修好吗", "{day}派人修{fac}", "{fac}维修约{day}", "{fac}啥时候弄好，{day}行不"),
            "dirty": ("{fac}太脏没人管", "{fac}卫生差", "{fac}该打扫了", "{fac}又臭又乱"),
            "add": ("{fac}能不能多装一个", "小区{fac}不够", "希望增设{fac}", "{fac}太少了"),
            "danger": ("{fac}有安全隐患", "{fac}差点伤到人", "{fac}危险，赶紧处理", "{fac}吓人，怕出事"),
        },
    ),
}
